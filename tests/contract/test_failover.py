"""A PostgreSQL that goes away under real servers; and a standby that lacks its newest commits, in its place.

Nothing hangs, callers hear 503 meanwhile, nothing that is acknowledged afterwards is lost, and what was lost
is said.
"""

import asyncio
import logging
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from logging.handlers import BufferingHandler
from typing import Any, NamedTuple

import httpx2
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from runglass import Client, RunglassError
from runglass.errors import StoreError
from runglass.store.records import Append
from runglass.testing import RunningServer
from tests.contract.test_tool_calls import paused, results_of, resumption
from tests.contract.wire import (
    ANYTHING,
    BRISK,
    ENDLESS,
    LONGEST_S,
    events_of,
    execute,
    frames,
    http_for,
    log_of,
    refusal,
    start,
    stored_run,
    trace_of,
    until_health,
)
from tests.faulty_store import FaultyStore
from tests.postgres_proxy import CuttingProxy, cutting_proxy
from tests.postgres_replication import replicated
from tests.postgres_server import fetched, postgres_database
from tests.servers import served
from tests.waiting import eventually

pytestmark = pytest.mark.slow

LEASE_S = 60.0
"""Longer than a busy machine keeps a process waiting: no run changes hands before the standby takes over."""
KEPT = 2
"""So many events of the run that goes on the standby has."""
LONG_TALK = """
slug: talk
steps:
  - {id: ask, type: llm, model: echo, prompt: "{{ message }}"}
  - {id: hold, type: wait, ms: 600000}
"""
FLOWS = (BRISK, LONG_TALK, ANYTHING, ENDLESS)


class After(NamedTuple):
    """What was there before the standby took over, and the servers, which have the standby now."""

    one: RunningServer
    other: RunningServer
    http: httpx2.Client
    going: str
    """A run of which the standby has the beginning."""
    going_head: int
    ended: str
    """A run that had ended, and goes on at the standby."""
    lost: str
    """A run that had ended, and that the standby does not have."""
    lost_call: "Future[httpx2.Response]"
    """The call of a run that went on, and that the standby does not have."""
    resumed: dict[str, Any]
    """A pause that was resumed, and at the standby is not."""
    resumed_call: "Future[httpx2.Response]"
    tail: "Future[list[int]]"
    """Who followed the run that goes on."""
    change_before: int
    log: BufferingHandler


@pytest.fixture(scope="module")
def after() -> Iterator[After]:
    log = BufferingHandler(1_000_000)
    logging.getLogger("runglass").addHandler(log)
    with ExitStack() as opened:
        opened.callback(logging.getLogger("runglass").removeHandler, log)
        database = opened.enter_context(replicated())
        database.primary.execute("CREATE DATABASE runglass")
        address = database.address("runglass")
        (one, http), (other, _) = [
            opened.enter_context(served(*flows, store=address, lease_s=LEASE_S, tail_poll_s=0.5))
            for flows in (FLOWS, ())
        ]
        threads = opened.enter_context(ThreadPoolExecutor(4))
        waiting = paused(http, "/seq/acme/demo/talk/execute")
        unfinished = set[int]()
        is_cut_off, is_over = threading.Event(), threading.Event()
        turns = defaultdict[int, asyncio.Lock](asyncio.Lock)

        async def held_back(batch: Append) -> None:
            """Of each run the standby is to have so much, and one of them has no end before it takes over."""
            # The store takes a run's appends in the order in which they are made, and there may be two.
            async with turns[batch.run_no]:
                if batch.head + len(batch.events) > KEPT:
                    await asyncio.to_thread(is_cut_off.wait)
                if batch.run_no in unfinished and batch.status == "completed":
                    await asyncio.to_thread(is_over.wait)

        opened.enter_context(FaultyStore(one.runtime.store)).before("append", held_back)
        going, ended = start(one, "brisk"), start(one, "brisk")
        eventually(lambda: stored_run(one, going).head == KEPT and stored_run(one, ended).head == KEPT)
        database.cut_off()
        unfinished.add(stored_run(one, going).no)
        is_cut_off.set()

        lost = execute(http, "anything")
        lost_call = threads.submit(http.post, "/seq/acme/demo/endless/execute", json={})
        resumed_call = threads.submit(
            http.post, "/seq/acme/demo/talk/execute", json=resumption(waiting, results_of(waiting))
        )
        seen = list[int]()
        tail = threads.submit(followed, other, going, seen)
        eventually(lambda: stored_run(one, ended).status == "completed" and stored_run(one, going).head > 4)
        eventually(lambda: stored_run(one, waiting["executionId"]).status == "running")
        eventually(lambda: http.get("/flow-runs?flow=endless&status=running").json()["runs"])
        going_head = stored_run(one, going).head
        eventually(lambda: len(seen) >= going_head)
        change_before = http.get("/flow-runs").json()["lastChange"]
        database.fail_over()
        is_over.set()
        runs = (going, ended)
        eventually(
            lambda: renewed(one, other) and {stored_run(one, run).status for run in runs} == {"completed"}
        )
        lost_of = (lost, lost_call, waiting, resumed_call)
        yield After(one, other, http, going, going_head, ended, *lost_of, tail, change_before, log)


def renewed(*servers: RunningServer) -> bool:
    """Whether each has renewed its lease, and compared its runs with those of the database."""
    with suppress(StoreError):
        for server in servers:
            server.call(server.runtime.engine.claims.keep_lease())
        return True
    return False


def followed(server: RunningServer, run_id: str, seen: list[int]) -> list[int]:
    """The numbers of the events that a client of the server gets, until its stream has ended for good."""
    with Client(base_url=server.base_url, api_key=server.key) as client:
        try:
            for event in client.run(run_id).live_trace():
                seen.append(event.seq)
        except RunglassError:
            seen.append(-1)
    return seen


def test_every_run_that_is_left_ends_with_its_log_whole_and_what_is_acknowledged_then_is_kept(
    after: After,
) -> None:
    acknowledged = execute(after.http, "anything")
    for server in (after.one, after.other):
        with http_for(server, after.one.key) as http:
            for run_id in (after.going, after.ended):
                events = log_of(http, run_id)
                assert events[-1].event == "flow_completed"
                ends = [event.data["stepId"] for event in events if event.event == "step_completed"]
                assert ends == ["one", "two", "three"]
            assert trace_of(http, acknowledged)["flowRun"]["status"] == "completed"


def test_callers_hear_of_a_run_and_a_resumption_that_the_standby_lacks(after: After) -> None:
    assert refusal(after.http.get(f"/flow-runs/{after.lost}/trace")) == (404, "RUN_NOT_FOUND")
    answer = after.lost_call.result(60)
    assert refusal(answer, "is not in the store any more") == (500, "INTERNAL_ERROR")
    # The pause is the answer once more, and can be resumed again.
    answer = after.resumed_call.result(60)
    assert (answer.status_code, answer.json()["status"]) == (200, "tool_calls_required")
    assert answer.json()["toolCalls"] == after.resumed["toolCalls"]


def test_a_tail_ends_before_a_number_that_two_events_had_and_nobody_goes_on_behind_it(after: After) -> None:
    """The tail is refused, wherever the run is by the time that it comes back."""
    *numbers, refused = after.tail.result(60)
    assert refused == -1
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= after.going_head

    def stream(last_id: int) -> httpx2.Response:
        headers = {"Last-Event-ID": str(last_id)}
        return after.http.get(f"/flow-runs/{after.going}/trace/stream", headers=headers)

    assert frames(stream(KEPT).text)[0].id == str(KEPT + 1)
    for last_id in (KEPT + 1, after.going_head):
        said = f"or go on after event {KEPT}"
        assert refusal(stream(last_id), said) == (422, "INVALID_REQUEST")
    end = stored_run(after.one, after.going).head
    assert frames(stream(end - 1).text)[0].id == str(end)
    # Nor do numbers of changes come again that were given and lost.
    assert after.http.get("/flow-runs").json()["lastChange"] > after.change_before


def test_what_was_lost_is_said(after: After) -> None:
    log = [record.getMessage() for record in after.log.buffer]
    assert any(f"run {after.lost} is lost: " in line for line in log)
    assert any("where a standby has taken over, the last commits may be missing" in line for line in log)
    entries = after.http.get("/audit", params={"limit": 100}).json()["entries"]
    told = {(entry["action"], entry["subject"]): entry["details"] for entry in reversed(entries)}
    assert ("run.lost", after.lost) in told
    back = told["run.set_back", after.going]
    assert back["after"] == {"events": KEPT}
    assert back["before"]["events"] >= after.going_head
    trace = after.http.get(f"/flow-runs/{after.going}/steps/one/trace", params={"attempt": 1}).json()
    assert trace["errorContext"]["code"] == "WORKER_LOST"


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
        yield Database(portal, proxy, by_way_of_proxy)


@pytest.mark.parametrize("lease_runs_out", [False, True])
def test_while_it_is_away_a_run_waits_for_it_and_callers_hear_that_nothing_is_started(
    lease_runs_out: bool,
) -> None:
    with (
        postgres_database() as address,
        behind_a_proxy(address) as database,
        served(ANYTHING, LASTING, store=database.by_way_of_proxy, lease_s=LONGEST_S) as (server, http),
    ):
        run, path = start(server, "lasting"), "/seq/acme/demo/anything"
        with database.away(), ThreadPoolExecutor(4) as calls:
            ways = (f"{path}/execute", f"{path}/jobs", f"{path}/v1/step")
            answers = [calls.submit(http.post, way, json={}) for way in ways]
            answers.append(calls.submit(http.get, "/flow-runs"))
            assert [refusal(answer.result(LONGEST_S)) for answer in answers] == 4 * [(503, "UNAVAILABLE")]
            health = until_health(server.address, "unavailable")
            assert "the store cannot be read" in health["reasons"]
            if lease_runs_out:
                fetched(address, "UPDATE lease SET expires_at = now() - interval '1 hour'")
        until_health(server.address, "ok", "degraded")
        events, trace = events_of(http, run), trace_of(http, run)
        assert [int(event.id) for event in events] == list(range(1, len(events) + 1))
        assert events[-1].event == "flow_completed"
        assert trace["flowRun"]["status"] == "completed"
        assert lease_runs_out or [step["attempt"] for step in trace["steps"]] == [1, 1]
        assert http.get("/flow-runs").json()["runs"][0]["id"] == run, "nothing was started"
        execute(http, "anything")
