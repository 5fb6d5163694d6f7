"""A PostgreSQL that goes away under a real server: 503 meanwhile, and all is well when it is back."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import httpx2
import pytest
from anyio.from_thread import start_blocking_portal

from runglass.testing import RunningServer, running_server
from tests.contract.wire import (
    ANYTHING,
    LONGEST_S,
    events_of,
    execute,
    refusal,
    start,
    trace_of,
    until_health,
)
from tests.postgres_proxy import CuttingProxy, cutting_proxy
from tests.postgres_server import fetched, postgres_database

pytestmark = pytest.mark.slow

LASTING = """
slug: lasting
steps:
  - {id: hold, type: wait, ms: 300}
  - {id: say, type: code, code: 'return {"text": "hi"}'}
"""

Call = Callable[[Callable[[], None]], object]


@contextmanager
def proxy_in_a_thread(address: str) -> Iterator[tuple[CuttingProxy, str, Call]]:
    """A proxy, the address by way of it, and what calls its methods on its own event loop."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(cutting_proxy(address)) as (proxy, by_way_of_it),
    ):
        yield proxy, by_way_of_it, portal.call


class Database(NamedTuple):
    """The database of a server, which can be taken away from it."""

    proxy: CuttingProxy
    call: Call
    address: str

    @contextmanager
    def away(self, *, silent: bool = False) -> Iterator[None]:
        """The database answers nobody until the block ends; a silent one takes connections all the same."""
        self.call(self.proxy.fall_silent if silent else self.proxy.go_away)
        try:
            yield
        finally:
            self.call(self.proxy.speak if silent else self.proxy.come_back)

    def execute(self, statement: str) -> None:
        """Runs it by another way, which is always open."""
        fetched(self.address, statement)


@pytest.fixture(scope="module")
def around() -> Iterator[tuple[RunningServer, Database]]:
    with (
        postgres_database() as address,
        proxy_in_a_thread(address) as (proxy, by_way_of_it, call),
        running_server(store=by_way_of_it, lease_s=LONGEST_S) as running,
    ):
        for flow in (ANYTHING, LASTING):
            running.push(flow)
        yield running, Database(proxy, call, address)


@pytest.fixture(scope="module")
def server(around: tuple[RunningServer, Database]) -> RunningServer:
    return around[0]


@pytest.fixture(scope="module")
def database(around: tuple[RunningServer, Database]) -> Database:
    return around[1]


def test_while_it_is_away_nothing_is_started_and_callers_hear_so(
    server: RunningServer, http: httpx2.Client, database: Database
) -> None:
    execute(http, "anything")
    before = http.get("/flow-runs").json()
    path = "/seq/acme/demo/anything"
    with database.away(), ThreadPoolExecutor(4) as calls:
        ways = (f"{path}/execute", f"{path}/jobs", f"{path}/v1/step")
        answers = [calls.submit(http.post, way, json={}) for way in ways]
        answers.append(calls.submit(http.get, "/flow-runs"))
        assert [refusal(answer.result(LONGEST_S)) for answer in answers] == 4 * [(503, "UNAVAILABLE")]
        health = until_health(server.address, "unavailable")
        assert "the store cannot be read" in health["reasons"]
    until_health(server.address, "ok", "degraded")
    assert http.get("/flow-runs").json() == before
    execute(http, "anything")


def test_probes_are_answered_while_it_is_silent(server: RunningServer, database: Database) -> None:
    until_health(server.address, "ok", "degraded")
    with database.away(silent=True):
        health = until_health(server.address, "unavailable")
        assert "the store has not answered a read for 0.8 s" in health["reasons"]
        ready = httpx2.get(f"{server.address}/ready", timeout=LONGEST_S)
        assert (ready.status_code, ready.json()["status"]) == (503, "unready")
    until_health(server.address, "ok", "degraded")


@pytest.mark.parametrize("lease_runs_out", [False, True])
def test_a_run_in_the_middle_waits_for_it(
    server: RunningServer, http: httpx2.Client, database: Database, lease_runs_out: bool
) -> None:
    run = start(server, "lasting")
    with database.away():
        until_health(server.address, "unavailable")
        if lease_runs_out:
            database.execute("UPDATE lease SET expires_at = now() - interval '1 hour'")
    until_health(server.address, "ok", "degraded")
    events, trace = events_of(http, run), trace_of(http, run)
    assert [int(event.id) for event in events] == list(range(1, len(events) + 1))
    assert events[-1].event == "flow_completed"
    assert trace["flowRun"]["status"] == "completed"
    assert lease_runs_out or [step["attempt"] for step in trace["steps"]] == [1, 1]
