"""The kinds of stores that servers of the contract tests run on."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

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
