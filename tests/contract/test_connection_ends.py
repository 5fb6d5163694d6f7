"""Callers of HTTP/1.0, whose responses end with the connection, and callers that close their side first."""

import json
import socket
from collections.abc import Iterator

import pytest

from runglass.testing import RunningServer, running_server
from tests.contract.wire import (
    ANYTHING,
    BRISK,
    ENDLESS,
    cancel,
    execute,
    frames,
    http_for,
    raw_connection,
    start,
)

LARGE = 400_000
GO_ON = b"HTTP/1.1 100 Continue"
LONG = "slug: long\nsteps:\n" + "".join(f"  - {{id: s{n}, type: passthrough}}\n" for n in range(4))
CORK = getattr(socket, "TCP_CORK", 4)
"""Holds bytes back until more follow; 4 is `TCP_NOPUSH` of macOS."""


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(capture="full", snapshot_limit_bytes=1_000_000) as running:
        for flow in (ANYTHING, BRISK, ENDLESS, LONG):
            running.push(flow)
        yield running


@pytest.fixture(scope="module")
def run(server: RunningServer) -> str:
    """A run whose trace is larger than what is sent in one part."""
    with http_for(server, server.key) as http:
        return execute(http, "long", parameters={"text": "x" * LARGE})


def request(server: RunningServer, line: str, version: str, body: bytes = b"") -> bytes:
    method, path = line.split()
    head = f"{method} /api/v1{path} HTTP/{version}\r\nHost: a\r\nAuthorization: Bearer {server.key}\r\n"
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{head}{length}\r\n".encode() + body


def send_and_close(connection: socket.socket, asked: bytes) -> None:
    """Closes the sending side in the packet of the request, so that no response begins before."""
    connection.setsockopt(socket.IPPROTO_TCP, CORK, 1)
    connection.sendall(asked)
    connection.shutdown(socket.SHUT_WR)


def rest_of(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(1 << 20):
        received += part
    return received


def answered(server: RunningServer, asked: bytes, *, half_closed: bool = False) -> tuple[bytes, bytes]:
    """Head and body of all that comes until the connection is closed."""
    with raw_connection(server) as connection:
        if half_closed:
            send_and_close(connection, asked)
        else:
            connection.sendall(asked)
        head, _, body = rest_of(connection).partition(b"\r\n\r\n")
        while head == GO_ON:
            # On a busy machine even a brief run keeps its caller waiting for so long.
            head, _, body = body.partition(b"\r\n\r\n")
        return head.lower(), body


def unchunked(body: bytes) -> bytes:
    content = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        if size == b"0":
            assert body == b"\r\n", "the response goes on behind its end"
            return content
        content += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]


def test_a_large_trace_comes_without_chunks_to_http_1_0(server: RunningServer, run: str) -> None:
    head, body = answered(server, request(server, f"GET /flow-runs/{run}/trace", "1.0"))
    assert head.startswith(b"http/1.1 200 ")
    assert b"transfer-encoding" not in head
    assert b"content-length" not in head
    assert b"connection: close" in head
    trace = json.loads(body)
    assert trace["steps"][0]["inputContext"]["text"] == "x" * LARGE


def test_events_come_without_chunks_to_http_1_0(server: RunningServer) -> None:
    live = start(server, "brisk")
    head, body = answered(server, request(server, f"GET /flow-runs/{live}/trace/stream", "1.0"))
    assert b"transfer-encoding" not in head
    assert frames(body.decode())[-1].event == "flow_completed"


def test_a_response_with_a_length_is_the_same_to_http_1_0(server: RunningServer) -> None:
    body = json.dumps({"parameters": {"text": "HTTP/1.1 200 OK\r\n5\r\nabc"}}).encode()
    head, got = answered(server, request(server, "POST /seq/acme/demo/anything/execute", "1.0", body))
    assert f"content-length: {len(got)}".encode() in head
    assert json.loads(got)["result"] == json.loads(body)["parameters"]


def test_a_caller_of_http_1_0_is_not_told_to_go_on(server: RunningServer) -> None:
    asked = request(server, "POST /seq/acme/demo/anything/execute", "1.0", b"{}")
    head, _ = answered(server, asked.replace(b"Host: a\r\n", b"Host: a\r\nExpect: 100-continue\r\n"))
    assert head.startswith(b"http/1.1 200 ")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(
    ("line", "body"),
    [
        ("GET /flow-runs", b""),
        ("GET /none", b""),
        ("POST /seq/acme/demo/anything/execute", b"{}"),
        ("POST /seq/acme/demo/brisk/execute", b"{}"),
    ],
)
def test_a_caller_that_has_closed_its_side_is_answered(
    server: RunningServer, version: str, line: str, body: bytes
) -> None:
    head, got = answered(server, request(server, line, version, body), half_closed=True)
    assert head.startswith(b"http/1.1 404 " if "none" in line else b"http/1.1 200 ")
    assert json.loads(got)


def test_a_caller_that_has_closed_its_side_gets_a_response_in_parts(server: RunningServer, run: str) -> None:
    _, trace = answered(server, request(server, f"GET /flow-runs/{run}/trace", "1.1"), half_closed=True)
    assert json.loads(unchunked(trace))["flowRun"]["id"] == run
    live = start(server, "brisk")
    asked = request(server, f"GET /flow-runs/{live}/trace/stream", "1.1")
    _, events = answered(server, asked, half_closed=True)
    assert frames(unchunked(events).decode())[-1].event == "flow_completed"


def test_requests_sent_ahead_are_all_answered(server: RunningServer) -> None:
    asked = request(server, "GET /flow-runs?limit=1", "1.1") * 3
    with raw_connection(server) as connection:
        send_and_close(connection, asked)
        assert rest_of(connection).count(b"HTTP/1.1 200 ") == 3


def test_a_caller_that_waits_for_long_is_told_so_by_100_continue(server: RunningServer) -> None:
    asked = request(server, "POST /seq/acme/demo/endless/execute", "1.1", b"{}")
    with raw_connection(server) as connection, http_for(server, server.key) as http:
        send_and_close(connection, asked)
        received = b""
        while GO_ON not in received:
            received += connection.recv(1000)
        (run,) = http.get("/flow-runs?flow=endless").json()["runs"]
        cancel(server, run["id"])
        final, _, body = rest_of(connection).partition(b"\r\n\r\n")
    assert final.startswith(b"HTTP/1.1 500 ")
    assert json.loads(body)["detail"]["executionId"] == run["id"]


def test_a_request_that_is_not_whole_ends_with_its_connection(server: RunningServer) -> None:
    whole = request(server, "POST /seq/acme/demo/anything/execute", "1.1", b"{}")
    for part in (whole[:20], whole[:-1]):
        assert answered(server, part, half_closed=True) == (b"", b"")
