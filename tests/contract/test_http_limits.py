"""Limits of HTTP on real sockets, byte by byte: heads, bodies, and connections."""

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable, Iterator

import httpx2
import pytest

from runglass.errors import StoreError
from runglass.server.http.connections import Connections
from runglass.testing import RunningServer, running_server
from tests.contract import wire
from tests.faulty_store import FaultyStore
from tests.servers import server_with
from tests.waiting import eventually

HOST = b"Host: a\r\n"
GET = b"GET /health HTTP/1.1\r\n"
HEALTH = GET + HOST + b"\r\n"
LAST = GET + HOST + b"Connection: close\r\n\r\n"
BODY = b'{"parameters":{"a":1}}'

LOOPED = """
slug: looped
steps: [{id: rows, type: loop, over: 'initial["rows"]', as: row, steps: [{id: row, type: passthrough}]}]
"""


# Room for three requests and a few connections more.
server = server_with(wire.ANYTHING, head_limit_bytes=8192, max_connections=3)


class Hourglass:
    """A server on which time passes for connections only when a test says so."""

    def __init__(self, server: RunningServer, connections: Connections) -> None:
        self.server = server
        self._connections = connections

    @property
    def connections(self) -> int:
        return len(self._connections.open)

    def passes(self, seconds: float) -> None:
        async def check() -> None:
            self._connections.check(seconds)

        self.server.call(check())

    def passes_until(self, holds: Callable[[], object]) -> None:
        """In small parts, in each of which the server reads and writes."""
        while not holds():
            self.passes(0.05)


@pytest.fixture(scope="module")
def hourglass() -> Iterator[Hourglass]:
    connectionss: list[Connections] = []

    async def stand_still(connections: Connections) -> None:
        connectionss.append(connections)
        await asyncio.Event().wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connections, "watch", stand_still)
        with running_server(
            head_time_limit_s=0.4,
            body_time_limit_s=0.4,
            min_body_bytes_per_s=2000,
            stalled_write_limit_s=0.6,
        ) as running:
            running.push(wire.ANYTHING)
            yield Hourglass(running, eventually(lambda: connectionss)[0])


def is_readable(connection: socket.socket) -> bool:
    """Whether something has come, or the end."""
    return bool(select.select([connection], [], [], 0)[0])


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
    with wire.raw_connection(server) as connection:
        connection.sendall(head)
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
    with wire.raw_connection(server) as connection:
        connection.sendall(post(server, *framing) + b"2\r\n{}\r\n0\r\n\r\n" + HEALTH)
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
    with wire.raw_connection(server) as connection:
        expects = post(server, "Expect: 100-continue", "Content-Length: 10")
        connection.sendall(expects.replace(b"nk_", b"no_"))
        assert refused(connection) == (401, "UNAUTHENTICATED")


def test_chunk_headers_and_trailers_are_limited(server: RunningServer) -> None:
    with wire.raw_connection(server) as connection:
        connection.sendall(post(server, "Transfer-Encoding: chunked") + b"2;a=")
        eventually(lambda: wire.requests_in(server))
        connection.sendall(b"b" * 9000)
        assert refused(connection) == LARGE


def test_requests_sent_ahead_are_answered_in_order_and_bounded(server: RunningServer) -> None:
    with wire.raw_connection(server) as connection:
        # The last one of a connection is answered whatever follows it.
        connection.sendall(HEALTH * 15 + LAST + HEALTH)
        answers = wire.rest_of(connection)
        assert answers.count(b"HTTP/1.1 ") == answers.count(b"HTTP/1.1 200 ") == 16
    with wire.raw_connection(server) as connection:
        connection.sendall(HEALTH * 1000)
        assert refused(connection, "sent ahead of their answers") == INVALID


def test_a_refusal_never_stands_within_a_response(server: RunningServer) -> None:
    with streams(server, 1) as (stream,):
        stream.sendall(b"nonsense\r\n\r\n")
        assert b"HTTP/1.1 400" not in wire.rest_of(stream)


def test_a_head_that_does_not_end_is_cut_off_in_time(hourglass: Hourglass) -> None:
    """Also behind a request that was answered."""
    with contextlib.ExitStack() as opened:
        silent, slow, idle = (opened.enter_context(wire.raw_connection(hourglass.server)) for _ in range(3))
        idle.sendall(HEALTH)
        assert wire.read_answer(idle)[0] == 200
        for connection in (slow, idle):
            connection.sendall(GET[:6])
        hourglass.passes_until(lambda: is_readable(slow) and is_readable(idle) and is_readable(silent))
        for connection in (slow, idle):
            assert refused(connection, "head_time_limit_s=0.4") == (408, "INVALID_REQUEST")
        # Browsers open connections in advance: an answer to no question would be taken for the next one's.
        assert wire.rest_of(silent) == b""


def test_a_body_must_come_at_a_least_rate(hourglass: Hourglass) -> None:
    server = hourglass.server
    with wire.raw_connection(server) as connection:
        connection.sendall(post(server, "Content-Length: 100000") + b"{")
        hourglass.passes_until(lambda: is_readable(connection))
        assert refused(connection, "min_body_bytes_per_s=2,000") == (408, "INVALID_REQUEST")
    spaces = b" " * 1000
    with wire.raw_connection(server) as connection:
        connection.sendall(post(server, f"Content-Length: {10 * len(spaces) + 2}"))
        # Twice as long as a body may take that does not get on.
        for _ in range(10):
            connection.sendall(spaces)
            hourglass.passes(0.08)
        connection.sendall(b"{}")
        assert wire.read_answer(connection)[0] == 200


@contextlib.contextmanager
def streams(server: RunningServer, number: int) -> Iterator[list[socket.socket]]:
    """So many connections on each of which an endless run is watched."""
    with contextlib.ExitStack() as stack:
        server.push(wire.ENDLESS)
        run = wire.start(server, "endless")
        opened = [stack.enter_context(wire.raw_connection(server)) for _ in range(number)]
        for connection in opened:
            connection.sendall(wire.head_of(server, "GET", f"/api/v1/flow-runs/{run}/trace/stream"))
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
        with wire.raw_connection(server) as connection:
            connection.sendall(behind.replace(b"Connection: close\r\n", b""))
            health, refused_behind = wire.rest_of(connection).split(b"HTTP/1.1 ")[1:]
        assert (health[:3], refused_behind[:3]) == (b"200", b"503")
        assert b"max_connections=3" in refused_behind
        opened[0].close()
        eventually(lambda: http.get("/flow-runs").status_code == 200)
    with wire.raw_connection(server) as connection:
        connection.sendall(behind)
        assert wire.rest_of(connection).count(b"HTTP/1.1 200") == 2, "there is room"


def small_window(server: RunningServer, stack: contextlib.ExitStack) -> socket.socket:
    connection = stack.enter_context(socket.socket())
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 500_000)
    connection.settimeout(wire.LONGEST_S)
    host, port = server.address.removeprefix("http://").split(":")
    connection.connect((host, int(port)))
    return connection


def test_a_connection_that_takes_nothing_of_a_stream_is_cut(hourglass: Hourglass) -> None:
    server = hourglass.server
    server.push(LOOPED)
    with wire.http_for(server, server.key) as http:
        run = wire.execute(http, "looped", parameters={"rows": ["b" * 200_000] * 30}, trace=True)
        path = f"/flow-runs/{run}/trace/stream"
        size = len(http.get(path).content)
    assert size > 9_000_000
    with contextlib.ExitStack() as stack:
        connection = small_window(server, stack)
        connection.sendall(wire.head_of(server, "GET", f"/api/v1{path}"))
        assert connection.recv(12) == b"HTTP/1.1 200"
        before = hourglass.connections
        hourglass.passes_until(lambda: hourglass.connections < before)
        assert len(wire.rest_of(connection)) < size


def test_a_slow_reader_gets_the_whole_answer(hourglass: Hourglass) -> None:
    body = b'{"parameters":{"a":"' + b"b" * 9_000_000 + b'"}}'
    with contextlib.ExitStack() as stack:
        connection = small_window(hourglass.server, stack)
        head = post(hourglass.server, f"Content-Length: {len(body)}", "Connection: close")
        connection.sendall(head + body)
        received = 0
        # More each time than fits into the window, so that between two looks something was taken.
        while data := connection.recv(1 << 20, socket.MSG_WAITALL):
            received += len(data)
            hourglass.passes(0.2)
        assert received > len(body)


def test_a_path_writes_no_line_of_its_own_into_the_log(
    server: RunningServer, faults: FaultyStore, caplog: pytest.LogCaptureFixture
) -> None:
    faults.fail("find_key", StoreError("away"))
    with wire.http_for(server, server.key) as http:
        path = "/flow-runs/a%0a2026-01-01 ERROR forged%1b[2J%c2%85%e2%80%ae"
        assert wire.refusal(http.get(path)) == (503, "UNAVAILABLE")
    (message,) = [record.getMessage() for record in caplog.records if "found no store" in record.getMessage()]
    assert message.isprintable()
    assert r"a\n2026-01-01 ERROR forged\x1b[2J\x85\u202e" in message
