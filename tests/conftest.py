"""What tests of every kind share."""

from collections.abc import Iterator

import pytest

from tests.unit.client.sides import Asyncio, Blocking, Side


@pytest.fixture(params=[Blocking, Asyncio], ids=lambda side: side.name)
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    """The client of blocking programs, then that of asyncio."""
    side: Side = request.param()
    yield side
    side.close()
