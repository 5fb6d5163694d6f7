"""A caller that hangs up gives its place among the open calls back; the run that it started goes on."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count

import httpx2
import pytest

from runglass.diff.run_diff import RunDiff
from runglass.outlines.outline import Outline
from runglass.outlines.timeline import Timeline
from runglass.outlines.timeline import timeline as make_timeline
from runglass.server.http.connections import Connection
from runglass.server.routes import diff, outline
from runglass.server.services.outlines import Outlines
from runglass.server.services.run_diff import diff_runs
from runglass.store.base import Store
from runglass.store.records import RunRecord
from runglass.testing import RunningServer, running_server
from tests.contract.wire import (
    ANYTHING,
    ENDLESS,
    LONGEST_S,
    detail,
    http_for,
    raw_connection,
    read_answer,
    refusal,
    requests_in,
    start,
)
from tests.faulty_store import FaultyStore
from tests.waiting import eventually

PLACES = 2
numbers = count()


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(capture="full", max_streams_per_project=PLACES) as running:
        for flow in (ANYTHING, ENDLESS):
            running.push(flow)
        yield running


def call(server: RunningServer, headers: str = "") -> bytes:
    """A blocking call whose run goes on until it is cancelled."""
    # No body is that of a call that has failed: its first repeat would be answered with the same failure.
    body = json.dumps({"parameters": {"n": next(numbers)}})
    head = "POST /api/v1/seq/acme/demo/endless/execute HTTP/1.1\r\nHost: a\r\n"
    head += f"Authorization: Bearer {server.key}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


def is_full(http: httpx2.Client) -> bool:
    answer = http.post("/seq/acme/demo/anything/execute", json={})
    if answer.status_code == 200:
        return False
    assert refusal(answer) == (429, "RATE_LIMITED")
    assert detail(answer)["limit"] == "max_streams_per_project"
    return True


def running(http: httpx2.Client) -> set[str]:
    runs = http.get("/flow-runs", params={"flow": "endless", "limit": 100}).json()["runs"]
    return {run["id"] for run in runs if run["status"] == "running"}


def clear(http: httpx2.Client) -> None:
    for run in running(http):
        assert http.delete(f"/flow-runs/{run}").status_code == 202
    eventually(lambda: not running(http))


@pytest.mark.parametrize("reset", [False, True])
def test_a_blocking_call_whose_caller_left_is_not_counted(
    server: RunningServer, http: httpx2.Client, reset: bool
) -> None:
    with ExitStack() as opened:
        connections = [opened.enter_context(raw_connection(server)) for _ in range(PLACES)]
        for connection in connections:
            connection.sendall(call(server))
        eventually(lambda: len(running(http)) == PLACES)
        assert is_full(http)
        before = running(http)
        if reset:
            # Closed with a time of zero, a socket sends a reset.
            for connection in connections:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    eventually(lambda: not is_full(http))
    assert running(http) == before, "the runs go on"
    clear(http)


def test_a_repeat_whose_caller_left_ends_and_the_first_call_is_answered(
    server: RunningServer, http: httpx2.Client
) -> None:
    asked = call(server, "Idempotency-Key: once\r\n")
    with raw_connection(server) as first:
        first.sendall(asked)
        eventually(lambda: len(running(http)) == 1)
        with raw_connection(server) as repeat:
            repeat.sendall(asked)
            eventually(lambda: requests_in(server) == PLACES)
            assert is_full(http)
        eventually(lambda: not is_full(http))
        eventually(lambda: requests_in(server) == 1)
        assert len(running(http)) == 1
        clear(http)
        assert first.recv(65_536).startswith(b"HTTP/1.1 500 ")


def test_a_caller_that_left_gets_its_answer_under_its_key(server: RunningServer, http: httpx2.Client) -> None:
    asked = call(server, "Idempotency-Key: later\r\n")
    with raw_connection(server) as connection:
        connection.sendall(asked)
        eventually(lambda: len(running(http)) == 1)
        (run,) = running(http)
    clear(http)
    with raw_connection(server) as again:
        again.sendall(asked)
        status, headers, body = read_answer(again)
    assert (status, headers["idempotent-replayed"]) == (500, "true")
    assert json.loads(body)["detail"]["executionId"] == run


def test_a_stream_whose_caller_left_is_not_counted(server: RunningServer) -> None:
    live = start(server, "endless")
    with http_for(server, server.key) as http:
        with ExitStack() as opened:
            for _ in range(PLACES):
                opened.enter_context(http.stream("GET", f"/flow-runs/{live}/trace/stream"))
            assert http.get(f"/flow-runs/{live}/trace/stream").status_code == 429
        eventually(lambda: not is_full(http))
        clear(http)


def test_for_a_caller_who_left_nothing_is_searched(
    server: RunningServer, http: httpx2.Client, faults: FaultyStore
) -> None:
    searched, goes_on = faults.calls("runs"), threading.Event()
    faults.before("runs", lambda *_, **__: asyncio.to_thread(goes_on.wait, LONGEST_S))
    leave_all_but_the_last(
        server, http, [f"/flow-runs?limit={limit}" for limit in (1, 2, 3, 4)], searched, goes_on
    )
    assert [call.named["limit"] for call in searched] == [1, 4]


def leave_all_but_the_last(
    server: RunningServer,
    http: httpx2.Client,
    paths: Sequence[str],
    begun: Sequence[object],
    goes_on: threading.Event,
) -> None:
    """Asks for the paths; once work for the first has `begun`, all but the last leave, and it goes on."""
    with ThreadPoolExecutor(1) as stays, pytest.MonkeyPatch.context() as patch:
        left, lose = list[Connection](), Connection.connection_lost

        def noted(connection: Connection, error: Exception | None) -> None:
            lose(connection, error)
            left.append(connection)

        patch.setattr(Connection, "connection_lost", noted)
        with ExitStack() as opened:
            for path in paths[:-1]:
                connection = opened.enter_context(raw_connection(server))
                head = f"GET /api/v1{path} HTTP/1.1\r\nHost: a\r\n"
                connection.sendall(f"{head}Authorization: Bearer {server.key}\r\n\r\n".encode())
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                eventually(lambda: bool(begun))
        eventually(lambda: len(left) == len(paths) - 1)
        last = stays.submit(http.get, paths[-1])
        goes_on.set()
        answer = last.result()
        assert answer.status_code == 200, answer.text


def test_for_a_caller_who_left_nothing_is_compared(
    server: RunningServer, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [
        http.post("/seq/acme/demo/anything/execute", json={}).json()["executionId"] for _ in range(PLACES + 2)
    ]
    compared, begun, goes_on = list[str](), list[object](), threading.Event()

    async def slowly(store: Store, a: RunRecord, b: RunRecord, *, with_same: bool) -> RunDiff:
        begun.append(b.id)
        await asyncio.to_thread(goes_on.wait, LONGEST_S)
        compared.append(b.id)
        return await diff_runs(store, a, b, with_same=with_same)

    monkeypatch.setattr(diff, "diff_runs", slowly)
    paths = [f"/flow-runs/{runs[0]}/diff/{other}" for other in runs[1:]]
    leave_all_but_the_last(server, http, paths, begun, goes_on)
    assert compared == runs[-1:]


def test_for_a_caller_who_left_no_timeline_is_made(
    server: RunningServer, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = http.post("/seq/acme/demo/anything/execute", json={}).json()["executionId"]
    find, begun, goes_on = Outlines.of, list[object](), threading.Event()
    made = list[int]()

    async def slowly(outlines: Outlines, run: RunRecord, *, seq: int | None = None) -> Outline:
        begun.append(run.id)
        await asyncio.to_thread(goes_on.wait, LONGEST_S)
        return await find(outlines, run, seq=seq)

    def noted(found: Outline, *, from_ms: int, to_ms: int, buckets: int) -> Iterator[Timeline | None]:
        made.append(buckets)
        return make_timeline(found, from_ms=from_ms, to_ms=to_ms, buckets=buckets)

    monkeypatch.setattr(Outlines, "of", slowly)
    monkeypatch.setattr(outline, "timeline_of", noted)
    paths = [f"/flow-runs/{run}/trace/timeline?buckets={buckets}" for buckets in (1, 2, 3, 4)]
    leave_all_but_the_last(server, http, paths, begun, goes_on)
    assert made == [4]
