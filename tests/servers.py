"""The server of a test module, as a fixture, and the kinds of stores that servers run on."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import httpx2
import pytest

from runglass.runtime.runtime import FixedLimits
from runglass.testing import RunningServer, running_server
from tests.contract.wire import http_for
from tests.postgres_server import postgres_database

Scope = Literal["module", "function"]

STORES = ("sqlite", "postgres")
WORKERS = "postgres and a worker"
"""The server executes nothing itself, and another process on its PostgreSQL does."""


@contextmanager
def server_on(
    store_kind: str, *flows: str, limits: FixedLimits | None = None, **settings: Any
) -> Iterator[RunningServer]:
    """A server with these flows, published, on a new store of this kind, until the block ends."""
    with ExitStack() as opened:
        if store_kind != "sqlite":
            settings["store"] = opened.enter_context(postgres_database())
        if store_kind == WORKERS:
            opened.enter_context(running_server(limits, **settings))
            settings["executes_runs"] = False
        running = opened.enter_context(running_server(limits, **settings))
        for flow in flows:
            running.push(flow)
        yield running


@contextmanager
def served(*flows: str, **settings: Any) -> Iterator[tuple[RunningServer, httpx2.Client]]:
    """A server with these flows, published, and a caller with its key, until the block ends."""
    with server_on("sqlite", *flows, **settings) as server, http_for(server, server.key) as http:
        yield server, http


def server_with(*flows: str, limits: FixedLimits | None = None, scope: Scope = "module", **how: Any) -> Any:
    """A fixture: a server with these flows, published, and the settings `how`.

    A module names it: `server = server_with(FLOW, capture="full")`. It runs on the kind of store that the
    tests of the module are given, or else on SQLite.
    """

    @pytest.fixture(scope=scope)
    def server(store_kind: str) -> Iterator[RunningServer]:
        with server_on(store_kind, *flows, limits=limits, **how) as running:
            yield running

    return server
