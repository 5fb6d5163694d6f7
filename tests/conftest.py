"""What tests of every kind share."""

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from unittest.mock import patch

import httpx2
import hypothesis
import pytest

from runglass.testing import RunningServer
from tests.contract.wire import http_for
from tests.examples import examples
from tests.unit.client.sides import Asyncio, Blocking, Side

# For the laws that do not say how many examples they take.
hypothesis.settings.register_profile("examples", examples(50, of=100))
hypothesis.settings.load_profile("examples")


def pytest_configure(config: pytest.Config) -> None:
    """In `make test`, tests that would start servers fail, as they are not marked slow."""
    if config.option.markexpr == "not slow":
        os.environ["RUNGLASS_TEST_QUICK"] = "1"


@pytest.fixture(params=[Blocking, Asyncio], ids=["blocking", "asyncio"])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    """The client of blocking programs, then that of asyncio."""
    side: Side = request.param()
    yield side
    side.close()


@pytest.fixture(scope="module")
def store_kind(request: pytest.FixtureRequest) -> str:
    """The kind of store that the server of the module has."""
    kind: str = getattr(request, "param", "sqlite")
    return kind


@pytest.fixture(scope="module")
def http(server: RunningServer) -> Iterator[httpx2.Client]:
    """A caller of the module's `server`, with its key."""
    with http_for(server, server.key) as client:
        yield client


@pytest.fixture(scope="session", autouse=True)
def _no_server_is_left() -> Iterator[None]:
    """PostgreSQL and the pooler before it, where tests have started them, end with the last test."""
    yield
    from tests.postgres_pooler import stop_pooler
    from tests.postgres_server import stop_postgres

    stop_pooler()
    stop_postgres()


@pytest.fixture(scope="session", autouse=True)
def _schemas_are_copied() -> Iterator[None]:
    """A store of this process that finds an empty file copies the schema into it, from a migrated database.

    A suite opens thousands of them, and migrating each takes more processor time than most tests do.
    """
    from runglass.store.sqlite import connections
    from runglass.store.sqlite.migrations import migrate_sqlite

    with closing(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)) as template:
        # As stores make their files: a copy takes on the whole header of its source.
        template.execute("PRAGMA auto_vacuum = INCREMENTAL")
        migrate_sqlite(template)
        # Two stores may open one new file at once, and the second must not copy over what the first wrote.
        one_at_a_time = threading.Lock()

        def migrate(connection: sqlite3.Connection) -> None:
            with one_at_a_time:
                if connection.execute("PRAGMA schema_version").fetchone() == (0,):
                    template.backup(connection)
            migrate_sqlite(connection)

        with patch.object(connections, "migrate_sqlite", migrate):
            yield


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    """Commands that are called in this process set the level of the log, for good."""
    log = logging.getLogger("runglass")
    level = log.level
    yield
    log.setLevel(level)
