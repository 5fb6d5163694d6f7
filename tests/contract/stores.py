"""The kinds of stores that servers of the contract tests run on."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from runglass.testing import RunningServer, running_server
from tests.postgres_server import postgres_database

STORES = ("sqlite", "postgres")
WORKERS = "postgres and a worker"
"""The server executes nothing itself, and another process on its PostgreSQL does."""


@contextmanager
def server_on(store_kind: str, **settings: Any) -> Iterator[RunningServer]:
    """A server with these settings on a new store of this kind, until the block ends."""
    if store_kind == "sqlite":
        with running_server(**settings) as running:
            yield running
        return
    with ExitStack() as opened:
        address = opened.enter_context(postgres_database())
        if store_kind == WORKERS:
            opened.enter_context(running_server(store=address, **settings))
            settings = {**settings, "executes_runs": False}
        yield opened.enter_context(running_server(store=address, **settings))


def own_server(*flows: str, **settings: Any) -> Any:
    """A fixture like `tests.servers.server_with`, on the kind of store that the module's tests are given."""

    @pytest.fixture(scope="module")
    def server(store_kind: str) -> Iterator[RunningServer]:
        with server_on(store_kind, **settings) as running:
            for flow in flows:
                running.push(flow)
            yield running

    return server
