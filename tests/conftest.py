"""What tests of every kind share."""

import logging
from collections.abc import Iterator

import pytest

from tests.unit.client.sides import Asyncio, Blocking, Side


@pytest.fixture(params=[Blocking, Asyncio], ids=lambda side: side.name)
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    """The client of blocking programs, then that of asyncio."""
    side: Side = request.param()
    yield side
    side.close()


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    """Commands that are called in this process set the level of the log, for good."""
    log = logging.getLogger("runglass")
    level = log.level
    yield
    log.setLevel(level)
