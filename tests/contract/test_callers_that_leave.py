"""A caller that hangs up gives its place among the open calls back; the run that it started goes on."""

import asyncio
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count

import httpx2
import pytest

from runglass.server.http.connections import Connection
from runglass.testing import RunningServer
from tests.contract.wire import (
    ANYTHING,
    ENDLESS,
    LONGEST_S,
    detail,
    head_of,
    raw_connection,
    read_answer,
    refusal,
    requests_in,
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


def test_a_caller_that_left_gets_its_answer_under_its_key(server: RunningServer, http: httpx2.Client) -> None:
    asked = call(server, "Idempotency-Key: later")
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


def test_for_a_caller_who_left_nothing_is_searched(
    server: RunningServer, http: httpx2.Client, faults: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four ask; while the search of the first goes on, all but the last leave."""
    searched, goes_on = faults.calls("runs"), threading.Event()
    faults.before("runs", lambda *_, **__: asyncio.to_thread(goes_on.wait, LONGEST_S))
    # Connections of other tests may be lost meanwhile.
    left, own = list[Connection](), set[Connection]()
    make, lose = Connection.connection_made, Connection.connection_lost

    def made(connection: Connection, transport: asyncio.BaseTransport) -> None:
        make(connection, transport)
        own.add(connection)

    def lost(connection: Connection, error: Exception | None) -> None:
        lose(connection, error)
        left.extend(own & {connection})

    monkeypatch.setattr(Connection, "connection_made", made)
    monkeypatch.setattr(Connection, "connection_lost", lost)
    with ThreadPoolExecutor(1) as stays:
        with ExitStack() as opened:
            for limit in (1, 2, 3):
                connection = opened.enter_context(raw_connection(server))
                connection.sendall(head_of(server, "GET", f"/api/v1/flow-runs?limit={limit}"))
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                eventually(lambda: bool(searched))
        eventually(lambda: len(left) == 3)
        last = stays.submit(http.get, "/flow-runs?limit=4")
        goes_on.set()
        assert last.result().status_code == 200
    assert [call.named["limit"] for call in searched] == [1, 4]
