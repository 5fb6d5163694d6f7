"""Limits of HTTP on real sockets, byte by byte: heads, bodies, and connections."""

import contextlib
import socket
from collections.abc import Iterator

import httpx2
import pytest

from runglass.errors import StoreError
from runglass.testing import RunningServer
from tests.contract import wire
from tests.faulty_store import FaultyStore
from tests.servers import served, server_with
from tests.waiting import eventually

HOST = b"Host: a\r\n"
GET = b"GET /health HTTP/1.1\r\n"
HEALTH = GET + HOST + b"\r\n"
LAST = GET + HOST + b"Connection: close\r\n\r\n"
BODY = b'{"parameters":{"a":1}}'


# Room for three requests and a few connections more.
server = server_with(wire.ANYTHING, head_limit_bytes=8192, max_connections=3)


def post(server: RunningServer, *headers: str) -> bytes:
    """The head of a call, with these headers."""
    return wire.head_of(server, "POST", "/api/v1/seq/acme/demo/anything/execute", *headers)


def refused(connection: socket.socket, *said: str) -> tuple[int, str]:
    """Status and code of the error that comes, which says all of this, and behind which nothing comes."""
    status, headers, body = wire.read_answer(connection)
    # At once, and not only when nothing has come for long.
    assert headers["connection"] == "close"
    assert wire.rest_of(connection) == b""
    return wire.refusal(httpx2.Response(status, headers=headers, content=body), *said)


LARGE = (431, "REQUEST_TOO_LARGE")
INVALID = (400, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("head", "expected", "message"),
    [
        (GET + b"\r\n", INVALID, "one Host header, not 0"),
        (GET + HOST + b"Host: b\r\n\r\n", INVALID, "one Host header, not 2"),
        (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", INVALID, "speaks HTTP/1.1"),
        (b"GET http://[a HTTP/1.1\r\n" + HOST + b"\r\n", INVALID, "not valid HTTP/1.1"),
        (b"GET http://a HTTP/1.1\r\n" + HOST + b"\r\n", INVALID, "not valid HTTP/1.1"),
        (GET + HOST + b"A: %040d\r\n" % 0 * 105 + b"\r\n", LARGE, "100 headers"),
        (GET + HOST + b"A: " + b"b" * 8192 + b"\r\n\r\n", LARGE, "head_limit_bytes=8,192"),
        # Refused while it still comes: there may be no end.
        (GET + HOST + b"A: " + b"b" * 9000, LARGE, "head_limit_bytes=8,192"),
        (b"GET /" + b"a" * 9000, LARGE, "head_limit_bytes=8,192"),
        *(
            (GET + HOST + header + b"\r\n\r\n", INVALID, "not valid HTTP")
            for header in (b"A: b\r\n c", b"A: b\0c", b"A: b\rc", b"A : b")
        ),
        (GET + b"Host: a\n\n", INVALID, "not valid HTTP"),
        (b"CONNECT a:1 HTTP/1.1\r\n" + HOST + b"\r\n", INVALID, "CONNECT is not for it"),
    ],
)
def test_a_bad_head_is_refused_with_its_status_and_code(
    server: RunningServer, head: bytes, expected: tuple[int, str], message: str
) -> None:
    with wire.raw_connection(server, head) as connection:
        assert refused(connection, message) == expected


@pytest.mark.parametrize(
    "framing",
    [
        ("Content-Length: 2", "Content-Length: 2"),
        ("Content-Length: 2, 2",),
        ("Content-Length: +2",),
        ("Content-Length: 2", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 2"),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding: identity",),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
    ],
)
def test_a_body_whose_end_is_in_doubt_is_refused_with_all_that_follows(
    server: RunningServer, framing: tuple[str, ...]
) -> None:
    with wire.raw_connection(server, post(server, *framing) + b"2\r\n{}\r\n0\r\n\r\n" + HEALTH) as connection:
        assert refused(connection) == INVALID


@pytest.mark.parametrize("cut", [0, 1, len(BODY), len(BODY) + 5])
def test_an_upgrade_that_is_not_offered_costs_nothing_of_the_body(server: RunningServer, cut: int) -> None:
    """Java's client asks for HTTP/2 so; its body must neither be lost nor pass for a further request."""
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c")
    following = BODY + LAST
    with wire.raw_connection(server) as connection:
        connection.sendall(post(server, *upgrade, f"Content-Length: {len(BODY)}") + following[:cut])
        # By then it has read what came before: it waits for the body, or has answered.
        if cut < len(BODY):
            eventually(lambda: wire.requests_in(server))
        else:
            connection.recv(1, socket.MSG_PEEK)
        connection.sendall(following[cut:])
        answers = wire.rest_of(connection)
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert b'"result":{"a":1}' in answers


def test_an_answer_in_place_of_100_continue_closes_the_connection(server: RunningServer) -> None:
    """The next bytes of the caller may be the body, or another request."""
    expects = post(server, "Expect: 100-continue", "Content-Length: 10")
    with wire.raw_connection(server, expects.replace(b"nk_", b"no_")) as connection:
        assert refused(connection) == (401, "UNAUTHENTICATED")


def test_chunk_headers_and_trailers_are_limited(server: RunningServer) -> None:
    with wire.raw_connection(server, post(server, "Transfer-Encoding: chunked") + b"2;a=") as connection:
        eventually(lambda: wire.requests_in(server))
        connection.sendall(b"b" * 9000)
        assert refused(connection) == LARGE


def test_a_refused_caller_that_goes_on_sending_is_told_why(server: RunningServer) -> None:
    """Also if so much had come at once that the server had stopped reading."""
    begun = post(server, "Transfer-Encoding: chunked") + b"%x\r\n" % 100_000 + b" " * 100_000 + b"\r\n2;a="
    sent = begun + b"b" * 8_000_000

    async def send_at_once() -> int:
        """Sends what fits into the buffers of the network, while the server's loop reads none of it."""
        return connection.send(sent, socket.MSG_DONTWAIT)

    with wire.raw_connection(server) as connection:
        # Behind a large body the buffers are large.
        connection.sendall(post(server, "Content-Length: 3000000") + b"{}".ljust(3_000_000))
        assert wire.read_answer(connection)[0] == 200
        connection.sendall(sent[server.call(send_at_once()) :])
        assert refused(connection) == LARGE


def test_requests_sent_ahead_are_answered_in_order_and_bounded(server: RunningServer) -> None:
    # The last one of a connection is answered whatever follows it.
    with wire.raw_connection(server, HEALTH * 15 + LAST + HEALTH) as connection:
        answers = wire.rest_of(connection)
        assert answers.count(b"HTTP/1.1 ") == answers.count(b"HTTP/1.1 200 ") == 16
    with wire.raw_connection(server, HEALTH * 1000) as connection:
        assert refused(connection, "sent ahead of their answers") == INVALID


@pytest.mark.parametrize("framing", [(), ("Transfer-Encoding: chunked",)])
def test_a_refusal_never_stands_within_a_response(server: RunningServer, framing: tuple[str, ...]) -> None:
    """Neither behind the request nor in its body, which the response does not wait for."""
    with streams(server, 1, *framing) as (stream,):
        stream.sendall(b"nonsense\r\n\r\n")
        assert b"HTTP/1.1 400" not in wire.rest_of(stream)


def test_a_running_server_keeps_the_deadlines_of_heads_bodies_and_idle_connections() -> None:
    limits = {"head_time_limit_s": 0.5, "body_time_limit_s": 0.5, "keep_alive_s": 1}
    with served(wire.ANYTHING, **limits) as (server, _), wire.raw_connection(server, HEALTH) as resting:
        assert wire.read_answer(resting)[0] == 200
        late = (408, "INVALID_REQUEST")
        with wire.raw_connection(server, GET) as connection:
            assert refused(connection, "head_time_limit_s=0.5") == late
        with wire.raw_connection(server, post(server, "Content-Length: 10") + b"{") as connection:
            assert refused(connection, "body_time_limit_s=0.5", "min_body_bytes_per_s=1,024") == late
        # uvicorn would do so after 5 s.
        resting.settimeout(2)
        assert wire.rest_of(resting) == b""


@contextlib.contextmanager
def streams(server: RunningServer, number: int, *headers: str) -> Iterator[list[socket.socket]]:
    """So many connections on each of which an endless run is watched."""
    with contextlib.ExitStack() as stack:
        server.push(wire.ENDLESS)
        run = wire.start(server, "endless")
        head = wire.head_of(server, "GET", f"/api/v1/flow-runs/{run}/trace/stream", *headers)
        opened = [stack.enter_context(wire.raw_connection(server, head)) for _ in range(number)]
        for connection in opened:
            assert connection.recv(12) == b"HTTP/1.1 200"
        yield opened


def test_a_full_server_answers_health_and_takes_others_once_there_is_room(server: RunningServer) -> None:
    """A request behind one for `/health` needs a place, too: else its connection would keep one for good."""
    behind = HEALTH + wire.head_of(server, "GET", "/api/v1/flow-runs", "Connection: close")
    with streams(server, 3) as opened, wire.http_for(server, server.key) as http:
        answer = http.get("/flow-runs")
        assert wire.refusal(answer, "max_connections=3") == (503, "UNAVAILABLE")
        assert answer.headers["retry-after"] == "1"
        assert http.get(f"{server.address}/health").status_code == 200
        with wire.raw_connection(server, behind.replace(b"Connection: close\r\n", b"")) as connection:
            health, refused_behind = wire.rest_of(connection).split(b"HTTP/1.1 ")[1:]
        assert (health[:3], refused_behind[:3]) == (b"200", b"503")
        assert b"max_connections=3" in refused_behind
        opened[0].close()
        eventually(lambda: http.get("/flow-runs").status_code == 200)
    with wire.raw_connection(server, behind) as connection:
        assert wire.rest_of(connection).count(b"HTTP/1.1 200") == 2, "there is room"


def test_a_connection_that_takes_nothing_of_a_stream_is_cut() -> None:
    with served(wire.GRID, stalled_write_limit_s=0.2) as (server, http):
        run = wire.execute(http, "grid", parameters={"rows": [["b" * 200_000] * 30]}, trace=True)
        path = f"/flow-runs/{run}/trace/stream"
        size = len(http.get(path).content)
        assert size > 9_000_000
        with wire.raw_connection(server, wire.head_of(server, "GET", f"/api/v1{path}")) as connection:
            assert connection.recv(12) == b"HTTP/1.1 200"
            eventually(lambda: not wire.requests_in(server))
            assert len(wire.rest_of(connection)) < size


@pytest.mark.parametrize(
    ("method", "fault", "what"),
    [
        ("find_key", StoreError("away"), "found no store"),
        ("trace", StoreError("away"), "found no store"),
        ("trace", ZeroDivisionError("away"), "failed"),
    ],
)
def test_what_a_request_brings_writes_no_line_of_its_own_into_the_log(
    server: RunningServer,
    faults: FaultyStore,
    caplog: pytest.LogCaptureFixture,
    method: str,
    fault: Exception,
    what: str,
) -> None:
    faults.fail(method, fault)
    path = "/flow-runs/a%0a2026-01-01 ERROR forged%1b[2J%c2%85%e2%80%ae/trace"
    hostile = {b"User-Agent": b"\x9b31mforged", b"X-Request-Id": b"\x9b31mforged"}
    with wire.http_for(server, server.key) as http:
        assert http.get(path, headers=hostile).status_code >= 500
    messages = [record.getMessage() for record in caplog.records]
    assert all(map(str.isprintable, messages))
    assert any(r"a\n2026-01-01 ERROR forged\x1b[2J\x85\u202e" in each and what in each for each in messages)
