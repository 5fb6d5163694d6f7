"""Two projects on one server: what one of them does, by its number or its time, costs the other little.

A caller that hangs up gives its place among the open calls back; the run that it started goes on.
"""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import wraps
from itertools import count
from typing import Any

import httpx2
import pytest

from runglass.limits.pace import LARGE_READ_BYTES, current_project
from runglass.store.sqlite.store import SqliteStore
from runglass.testing import RunningServer
from tests.contract import wire
from tests.faulty_store import FaultyStore
from tests.servers import server_with
from tests.waiting import eventually

RUNAWAY = "slug: runaway\nsteps: [{id: run, type: code, code: 'while True: pass'}]\n"
CODE = "slug: code\nsteps: [{id: sum, type: code, code: 'return {\"n\": 1 + 1}'}]\n"
LARGE = {"text": "x" * 500_000}
PLACES = 2
numbers = count()


LIMITS: dict[str, Any] = {"max_concurrent_runs": 3, "max_queued_runs": 20, "code_time_limit_ms": 600_000}
FLOWS = (wire.ANYTHING, wire.ENDLESS, RUNAWAY)
server = server_with(*FLOWS, **LIMITS, max_streams_per_project=PLACES, capture="full", log_level="error")


@pytest.fixture(scope="module")
def guest(server: RunningServer) -> Iterator[httpx2.Client]:
    for flow in (wire.ANYTHING, CODE):
        server.push(flow, org="guests", project="one")
    with wire.http_for(server, server.make_key("guests", "one")) as client:
        yield client


def call(server: RunningServer, *headers: str) -> bytes:
    """A blocking call whose run goes on until it is cancelled, with a large body."""
    # No body is that of a call that has failed: its first repeat would be answered with the same failure.
    body = json.dumps({"parameters": {"n": next(numbers), **LARGE}}).encode()
    more = [*headers, f"Content-Length: {len(body)}"]
    return wire.head_of(server, "POST", "/api/v1/seq/acme/demo/endless/execute", *more) + body


def is_full(http: httpx2.Client) -> bool:
    answer = http.post("/seq/acme/demo/anything/execute", json={})
    if answer.status_code == 200:
        return False
    assert wire.refusal(answer, "nothing was started") == (429, "RATE_LIMITED")
    assert wire.detail(answer)["limit"] == "max_streams_per_project"
    assert int(answer.headers["retry-after"]) >= 1
    return True


def running(http: httpx2.Client) -> set[str]:
    runs = http.get("/flow-runs", params={"flow": "endless", "limit": 100}).json()["runs"]
    return {run["id"] for run in runs if run["status"] == "running"}


def clear(http: httpx2.Client) -> None:
    for run in running(http):
        assert http.delete(f"/flow-runs/{run}").status_code == 202
    eventually(lambda: not running(http))


def watch(server: RunningServer) -> bytes:
    """A stream of a run that goes on until it is cancelled."""
    return wire.head_of(server, "GET", f"/api/v1/flow-runs/{wire.start(server, 'endless')}/trace/stream")


@pytest.mark.parametrize(("request_of", "reset"), [(call, False), (call, True), (watch, False)])
def test_a_project_has_so_many_calls_and_streams_and_one_whose_caller_left_is_not_counted(
    server: RunningServer,
    http: httpx2.Client,
    guest: httpx2.Client,
    request_of: Callable[[RunningServer], bytes],
    reset: bool,
) -> None:
    with ExitStack() as opened:
        connections = [opened.enter_context(wire.raw_connection(server)) for _ in range(PLACES)]
        for connection in connections:
            connection.sendall(request_of(server))
        eventually(lambda: len(running(http)) == wire.requests_in(server) == PLACES)
        assert is_full(http)
        before = running(http)
        assert guest.post("/seq/guests/one/anything/execute", json={}).status_code == 200
        if reset:
            # Closed with a time of zero, a socket sends a reset.
            for connection in connections:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    eventually(lambda: not is_full(http))
    assert running(http) == before, "the runs go on"
    clear(http)


def test_a_repeat_lets_the_next_call_in_and_ends_as_its_caller_leaves_and_the_first_one_is_answered(
    server: RunningServer, http: httpx2.Client
) -> None:
    asked = call(server, "Idempotency-Key: once")
    with wire.raw_connection(server, asked) as first:
        eventually(lambda: len(running(http)) == 1)
        with wire.raw_connection(server, asked):
            eventually(lambda: wire.requests_in(server) == PLACES and is_full(http))
            job = http.post("/seq/acme/demo/anything/jobs", json={"parameters": LARGE})
            assert job.status_code == 202
        eventually(lambda: not is_full(http))
        eventually(lambda: wire.requests_in(server) == 1)
        assert len(running(http)) == 1
        clear(http)
        status, _, body = wire.read_answer(first)
    with wire.raw_connection(server, asked) as again:
        again_status, headers, again_body = wire.read_answer(again)
    assert (status, again_status, headers["idempotent-replayed"]) == (500, 500, "true")
    assert again_body == body


def test_for_a_caller_who_left_nothing_is_searched(
    server: RunningServer, http: httpx2.Client, faults: FaultyStore
) -> None:
    """Four ask; while the search of the first goes on, all but the last leave, which waits until its end."""
    searched, goes_on = faults.calls("runs"), threading.Event()
    faults.before("runs", lambda *_, **__: asyncio.to_thread(goes_on.wait, wire.LONGEST_S))
    with ThreadPoolExecutor(1) as stays:
        with ExitStack() as opened:
            for limit in (1, 2, 3):
                connection = opened.enter_context(wire.raw_connection(server))
                connection.sendall(wire.head_of(server, "GET", f"/api/v1/flow-runs?limit={limit}"))
                eventually(lambda: bool(searched))
            eventually(lambda: wire.requests_in(server) == 3)
        eventually(lambda: wire.requests_in(server) <= 1)
        last = stays.submit(http.get, "/flow-runs?limit=4")
        eventually(lambda: wire.requests_in(server) == 2 or len(searched) > 1)
        assert len(searched) == 1
        goes_on.set()
        assert last.result().status_code == 200
    assert [call.named["limit"] for call in searched] == [1, 4]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("runs", "/flow-runs?q=text:never"),
        ("count_runs", "/flow-runs/histogram?q=text:never"),
        ("events", "/flow-runs/{run_id}/export?format=jsonl"),
        ("events", "/flow-runs/{run_id}/trace/stream"),
        ("trace", "/flow-runs/{run_id}/trace"),
        ("attempt_page", "/flow-runs/{run_id}/trace/outline"),
        ("attempt_page", "/flow-runs/{run_id}/trace/timeline"),
        ("attempt_data", "/flow-runs/{run_id}/steps/keep/trace"),
        ("attempt_data", "/flow-runs/{run_id}/steps/keep/payload"),
    ],
)
def test_of_each_project_one_search_or_page_is_read_at_a_time(
    server: RunningServer,
    http: httpx2.Client,
    guest: httpx2.Client,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
) -> None:
    """All reads share a few threads, in the order in which they are asked for. Runs of their own, as readers
    of the same outline or replay share it."""
    # Their traces and logs are long.
    body = {"message": "x" * LARGE_READ_BYTES}
    callers = ((http, "acme/demo"), (http, "acme/demo"), (guest, "guests/one"))
    runs = [
        (client, client.post(f"/seq/{project}/anything/execute", json=body).json()["executionId"])
        for client, project in callers
    ]
    read = getattr(SqliteStore, method)
    going: list[int] = []
    most = {"one": 0, "both": 0}
    all_are_there = threading.Event()

    @wraps(read)
    async def slowly(store: SqliteStore, *args: Any, **kwargs: Any) -> Any:
        if "most_log_bytes" in kwargs:
            return await read(store, *args, **kwargs)
        project_id = current_project.get()
        going.append(project_id)
        most["one"] = max(most["one"], going.count(project_id))
        most["both"] = max(most["both"], len(going))
        await asyncio.to_thread(all_are_there.wait, wire.LONGEST_S)
        found = await read(store, *args, **kwargs)
        going.remove(project_id)
        return found

    monkeypatch.setattr(SqliteStore, method, slowly)
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(client.get, path.format(run_id=run_id)) for client, run_id in runs]
        eventually(lambda: len(set(going)) == 2 and wire.requests_in(server) == 3)
        all_are_there.set()
        assert {call.result().status_code for call in asked} == {200}
    assert most == {"one": 1, "both": 2}


def test_endless_code_and_a_full_queue_of_one_project_do_not_stop_another(
    http: httpx2.Client, guest: httpx2.Client
) -> None:
    jobs = [http.post("/seq/acme/demo/runaway/jobs", json={}) for _ in range(24)]
    assert [job.status_code for job in jobs] == [202] * 23 + [503]
    refused = wire.detail(jobs[-1])
    assert (refused["limit"], refused["value"]) == ("max_queued_runs", 20)
    assert int(jobs[-1].headers["retry-after"]) >= 1
    for _ in range(3):
        answer = guest.post("/seq/guests/one/code/execute", json={})
        assert (answer.status_code, answer.json()["result"]) == (200, {"n": 2})
    still = [http.get(f"/seq/acme/demo/runaway/jobs/{job.json()['executionId']}") for job in jobs[:23]]
    assert {job.json()["status"] for job in still} == {"pending", "running"}
    for job in jobs[:23]:
        assert http.delete(f"/flow-runs/{job.json()['executionId']}").status_code == 202
