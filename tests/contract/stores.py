"""The kinds of stores that servers of the contract tests run on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from runglass.testing import RunningServer, running_server
from tests.postgres_server import postgres_database

STORES = ("sqlite", "postgres")


@contextmanager
def server_on(store_kind: str, **settings: Any) -> Iterator[RunningServer]:
    """A server with these settings on a new store of this kind, until the block ends."""
    if store_kind == "sqlite":
        with running_server(**settings) as running:
            yield running
        return
    with postgres_database() as address, running_server(store=address, **settings) as running:
        yield running
