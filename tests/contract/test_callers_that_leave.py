"""A caller that hangs up gives its place among the open calls back; the run that it started goes on."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.wire import (
    ANYTHING,
    ENDLESS,
    LONGEST_S,
    detail,
    head_of,
    http_for,
    raw_connection,
    read_answer,
    refusal,
    requests_in,
    start,
)
from tests.faulty_store import FaultyStore
from tests.servers import server_with
from tests.waiting import eventually

PLACES = 2
numbers = count()


server = server_with(ANYTHING, ENDLESS, capture="full", max_streams_per_project=PLACES)


def call(server: RunningServer, *headers: str) -> bytes:
    """A blocking call whose run goes on until it is cancelled."""
    # No body is that of a call that has failed: its first repeat would be answered with the same failure.
    body = json.dumps({"parameters": {"n": next(numbers)}}).encode()
    more = [*headers, f"Content-Length: {len(body)}"]
    return head_of(server, "POST", "/api/v1/seq/acme/demo/endless/execute", *more) + body


def is_full(http: httpx2.Client) -> bool:
    answer = http.post("/seq/acme/demo/anything/execute", json={})
    if answer.status_code == 200:
        return False
    assert refusal(answer, "nothing was started") == (429, "RATE_LIMITED")
    assert detail(answer)["limit"] == "max_streams_per_project"
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
    return head_of(server, "GET", f"/api/v1/flow-runs/{start(server, 'endless')}/trace/stream")


@pytest.mark.parametrize(("request_of", "reset"), [(call, False), (call, True), (watch, False)])
def test_a_project_has_so_many_calls_and_streams_and_one_whose_caller_left_is_not_counted(
    server: RunningServer, http: httpx2.Client, request_of: Callable[[RunningServer], bytes], reset: bool
) -> None:
    with ExitStack() as opened:
        connections = [opened.enter_context(raw_connection(server)) for _ in range(PLACES)]
        for connection in connections:
            connection.sendall(request_of(server))
        eventually(lambda: len(running(http)) == requests_in(server) == PLACES)
        assert is_full(http)
        before = running(http)
        server.push(ANYTHING, project="guests")
        with http_for(server, server.make_key("acme", "guests")) as guest:
            assert guest.post("/seq/acme/guests/anything/execute", json={}).status_code == 200
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
    asked = call(server, "Idempotency-Key: once")
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
    with raw_connection(server) as again:
        again.sendall(asked)
        status, headers, _ = read_answer(again)
    assert (status, headers["idempotent-replayed"]) == (500, "true")


def test_for_a_caller_who_left_nothing_is_searched(
    server: RunningServer, http: httpx2.Client, faults: FaultyStore
) -> None:
    """Four ask; while the search of the first goes on, all but the last leave."""
    searched, goes_on = faults.calls("runs"), threading.Event()
    faults.before("runs", lambda *_, **__: asyncio.to_thread(goes_on.wait, LONGEST_S))
    with ThreadPoolExecutor(1) as stays:
        with ExitStack() as opened:
            for limit in (1, 2, 3):
                connection = opened.enter_context(raw_connection(server))
                connection.sendall(head_of(server, "GET", f"/api/v1/flow-runs?limit={limit}"))
                eventually(lambda: bool(searched))
            eventually(lambda: requests_in(server) == 3)
        eventually(lambda: requests_in(server) <= 1)
        last = stays.submit(http.get, "/flow-runs?limit=4")
        goes_on.set()
        assert last.result().status_code == 200
    assert [call.named["limit"] for call in searched] == [1, 4]
