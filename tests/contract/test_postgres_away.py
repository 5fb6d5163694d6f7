"""A PostgreSQL that goes away under a real server: 503 meanwhile, and all is well when it is back."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import httpx2
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

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


class Database(NamedTuple):
    """The database of a server, which can be taken away from it."""

    portal: BlockingPortal
    proxy: CuttingProxy
    address: str
    """The way to it that is always open."""
    by_way_of_proxy: str

    @contextmanager
    def away(self) -> Iterator[None]:
        """The database takes no connections until the block ends."""
        self.portal.call(self.proxy.go_away)
        try:
            yield
        finally:
            self.portal.call(self.proxy.come_back)


@contextmanager
def behind_a_proxy(address: str) -> Iterator[Database]:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(cutting_proxy(address)) as (proxy, by_way_of_proxy),
    ):
        yield Database(portal, proxy, address, by_way_of_proxy)


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with postgres_database() as address, behind_a_proxy(address) as database:
        yield database


@pytest.fixture(scope="module")
def server(database: Database) -> Iterator[RunningServer]:
    with running_server(store=database.by_way_of_proxy, lease_s=LONGEST_S) as running:
        for flow in (ANYTHING, LASTING):
            running.push(flow)
        yield running


@pytest.mark.parametrize("lease_runs_out", [False, True])
def test_while_it_is_away_a_run_waits_for_it_and_callers_hear_that_nothing_is_started(
    server: RunningServer, http: httpx2.Client, database: Database, lease_runs_out: bool
) -> None:
    run, path = start(server, "lasting"), "/seq/acme/demo/anything"
    with database.away(), ThreadPoolExecutor(4) as calls:
        ways = (f"{path}/execute", f"{path}/jobs", f"{path}/v1/step")
        answers = [calls.submit(http.post, way, json={}) for way in ways]
        answers.append(calls.submit(http.get, "/flow-runs"))
        assert [refusal(answer.result(LONGEST_S)) for answer in answers] == 4 * [(503, "UNAVAILABLE")]
        health = until_health(server.address, "unavailable")
        assert "the store cannot be read" in health["reasons"]
        if lease_runs_out:
            fetched(database.address, "UPDATE lease SET expires_at = now() - interval '1 hour'")
    until_health(server.address, "ok", "degraded")
    events, trace = events_of(http, run), trace_of(http, run)
    assert [int(event.id) for event in events] == list(range(1, len(events) + 1))
    assert events[-1].event == "flow_completed"
    assert trace["flowRun"]["status"] == "completed"
    assert lease_runs_out or [step["attempt"] for step in trace["steps"]] == [1, 1]
    assert http.get("/flow-runs").json()["runs"][0]["id"] == run, "nothing was started"
    execute(http, "anything")
