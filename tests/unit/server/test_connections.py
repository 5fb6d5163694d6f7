"""Limits of connections that no socket can show at will: the clock, transports and uvicorn are the test's.

And answers that begin or end just when others are ended; who ends which is in `tests/contract`.
"""

import asyncio
import resource
import time
from functools import partial
from itertools import chain, repeat
from unittest.mock import AsyncMock, Mock

import pytest
from starlette.types import Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from runglass.config.settings import Settings
from runglass.errors import StoreError
from runglass.server.bootstrap import connection_limit
from runglass.server.http.connections import (
    LINGER_BYTES,
    LINGER_S,
    MOST_HELD,
    RESERVE,
    Connection,
    Connections,
)
from runglass.server.http.open_responses import OpenResponses
from tests.waiting import until

SETTINGS = Settings(
    head_time_limit_s=10, body_time_limit_s=20, min_body_bytes_per_s=100, stalled_write_limit_s=30
)
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"


def connected(connections: Connections) -> tuple[Connection, Mock, Mock]:
    """A connection, the transport that it has, and what uvicorn gets of it."""
    wire, uvicorn = Mock(spec=asyncio.Transport), Mock(spec=asyncio.Protocol, flow=Mock())
    wire.get_write_buffer_size.return_value = 0
    wire.is_closing.return_value = False
    connection = Connection(connections, lambda **_: uvicorn, app_state={})
    connection.connection_made(wire)
    return connection, wire, uvicorn


def ends_of(wire: Mock) -> list[str]:
    """How the transport was ended so far."""
    return [name for name, *_ in wire.method_calls if name in ("write_eof", "abort", "close")]


@pytest.fixture
def connections() -> Connections:
    return Connections(SETTINGS, 3)


def is_late(wire: Mock, *said: bytes) -> bool:
    """Whether the caller was told that this was late, and no more is written."""
    if "write_eof" not in ends_of(wire):
        return False
    ((told,),) = (call.args for call in wire.write.call_args_list)
    return all(each in told for each in (b"HTTP/1.1 408 ", *said))


def test_a_head_must_be_complete_in_time_and_one_that_has_not_begun_is_not_answered(
    connections: Connections,
) -> None:
    """Browsers open connections in advance: an answer to no question would be taken for the next one's."""
    (_, silent, _), (slow, of_slow, _), (idle, of_idle, _) = (connected(connections) for _ in range(3))
    slow.data_received(GET)
    idle.data_received(GET + b"\r\n")
    idle.request_ended(is_answered=False)
    connections.check(10)
    idle.data_received(GET)
    assert ends_of(silent) == ends_of(of_slow) == []
    connections.check(0.1)
    assert ends_of(silent) == ["close"]
    assert is_late(of_slow, b"head_time_limit_s=10")
    connections.check(9.9)
    assert not is_late(of_idle)
    connections.check(0.1)
    assert is_late(of_idle, b"head_time_limit_s=10")


def test_a_body_must_come_at_a_least_rate(connections: Connections) -> None:
    (slow, of_slow, _), (whole, of_whole, _) = (connected(connections) for _ in range(2))
    slow.data_received(POST)
    slow.data_received(b"a" * 1000)
    whole.data_received(POST + b"a" * 5000)
    connections.check(30)
    assert not is_late(of_slow)
    connections.check(0.1)
    assert is_late(of_slow, b"body_time_limit_s=20", b"min_body_bytes_per_s=100")
    connections.check(1000)
    assert ends_of(of_whole) == []


def test_a_caller_that_takes_nothing_is_cut_and_a_slow_one_is_not(connections: Connections) -> None:
    connection, wire, _ = connected(connections)
    connection.data_received(GET + b"\r\n")
    for unsent in (3000, 2000, 1000):
        wire.get_write_buffer_size.return_value = unsent
        connections.check(30.1)
    connections.check(30)
    assert ends_of(wire) == []
    connections.check(0.1)
    assert ends_of(wire) == ["abort"]


def test_time_in_which_the_server_does_not_read_does_not_count(connections: Connections) -> None:
    connection, wire, uvicorn = connected(connections)
    connection.data_received(POST)
    wire.is_reading.return_value = False
    connections.check(1000)
    wire.is_reading.return_value = True
    connections.check(19)
    uvicorn.connection_lost.assert_not_called()


async def test_behind_a_large_body_is_read_on_so_that_a_loss_is_heard(connections: Connections) -> None:
    """uvicorn pauses reading amid a large body until the application asks for more of it."""
    wire, got = Mock(spec=asyncio.Transport), list[Message]()

    async def takes_all_and_waits(_: Scope, receive: Receive, __: Send) -> None:
        got.append(await receive())
        got.append(await receive())

    config = Config(takes_all_and_waits, lifespan="off")
    config.load()
    protocol = partial(HttpToolsProtocol, config=config, server_state=ServerState())
    connection = Connection(connections, protocol, app_state={})
    connection.connection_made(wire)
    connection.data_received(POST.replace(b"5000", b"200000") + b"a" * 199_999)
    wire.pause_reading.assert_called_once_with()
    wire.resume_reading.assert_not_called()
    connection.data_received(b"a")
    wire.resume_reading.assert_called_once_with()
    connection.connection_lost(None)
    await until(lambda: len(got) == 2)


def test_a_refused_caller_is_cut_off_if_it_stays_or_sends_much(connections: Connections) -> None:
    connection, wire, _ = connected(connections)
    connection.data_received(b"nonsense\r\n\r\n")
    assert ends_of(wire) == ["write_eof"]
    connection.data_received(GET + b"\r\n")
    connections.check(LINGER_S)
    assert ends_of(wire) == ["write_eof"]
    connections.check(0.1)
    assert ends_of(wire) == ["write_eof", "abort"]
    assert not connections.open
    talker, wire, _ = connected(connections)
    talker.data_received(b"nonsense\r\n\r\n")
    talker.data_received(b"a" * LINGER_BYTES)
    assert ends_of(wire) == ["write_eof"]
    talker.data_received(b"a")
    assert ends_of(wire) == ["write_eof", "abort"]


def test_a_body_behind_its_response_is_read_within_bounds(connections: Connections) -> None:
    connection, wire, uvicorn = connected(connections)
    connection.data_received(POST.replace(b"5000", b"90000000"))
    assert connection not in connections.waiting
    connection.request_ended(is_answered=False)
    connection.data_received(b"a" * SETTINGS.body_limit_bytes)
    uvicorn.connection_lost.assert_not_called()
    connection.data_received(b"a")
    uvicorn.connection_lost.assert_called_once()
    wire.write.assert_not_called()
    assert ends_of(wire) == ["write_eof"]


@pytest.mark.parametrize(("later_s", "goes"), [(0.2, "new"), (10.0, "resting")])
def test_the_time_of_a_connection_without_a_request_counts_tenfold(
    connections: Connections, monkeypatch: pytest.MonkeyPatch, later_s: float, goes: str
) -> None:
    """Half-open connections displace each other, and idle ones make room for somebody from far away."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    resting, wire_of_resting, _ = connected(connections)
    resting.data_received(GET + b"\r\n")
    resting.request_ended(is_answered=False)
    now[0] += later_s - 0.05
    _, wire_of_new, _ = connected(connections)
    now[0] += 0.05
    wires = [connected(connections)[1] for _ in range(RESERVE + 2)]
    assert ends_of(wire_of_resting) == (["abort"] if goes == "resting" else [])
    assert ends_of(wire_of_new) == (["abort"] if goes == "new" else [])
    assert not any(map(ends_of, wires))


def test_heads_that_are_not_complete_are_bounded() -> None:
    connections = Connections(SETTINGS, 10_000)
    begun = [connected(connections) for _ in range(MOST_HELD + 50)]
    for connection, _, _ in begun:
        connection.data_received(GET)
    connections.check(1)
    assert [bool(ends_of(wire)) for _, wire, _ in begun] == [True] * 50 + [False] * MOST_HELD


@pytest.mark.parametrize(
    ("descriptors", "most", "limit"),
    [
        (1024, None, 752),
        (256, None, 176),
        (20_000, None, 17_936),
        (1 << 20, None, 20_000),
        (1 << 20, 100_000, 100_000),
        (resource.RLIM_INFINITY, 100_000, 100_000),
        (1024, 5000, 752),
        (1024, 10, 10),
    ],
)
def test_descriptors_are_kept_back(
    monkeypatch: pytest.MonkeyPatch, descriptors: int, most: int | None, limit: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    assert connection_limit(Settings(max_connections=most)) == limit


async def test_an_answer_that_begins_once_its_key_is_revoked_or_the_server_stops_ends_at_once() -> None:
    open_responses, ended = OpenResponses(), list[str]()
    await open_responses.end_key(1)
    # Its request was let in just before.
    with open_responses.ended_by(lambda: ended.append("late"), key_id=1):
        pass
    open_responses.end_all()
    with open_responses.ended_by(lambda: ended.append("later")):
        assert ended == ["late", "later"]


def test_an_answer_that_ends_another_does_not_disturb_the_rest() -> None:
    open_responses, ended = OpenResponses(), []

    def end_and_leave() -> None:
        ended.append("one")
        other.__exit__(None, None, None)

    other = open_responses.ended_by(lambda: ended.append("two"))
    with open_responses.ended_by(end_and_leave):
        other.__enter__()
        open_responses.end_all()
    assert "one" in ended


async def test_a_store_that_fails_is_asked_again_and_without_open_responses_not_at_all(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("WARNING")
    store, open_responses, ended = Mock(), OpenResponses(look_s=0.0), asyncio.Event()
    asked = store.live_keys = AsyncMock(side_effect=chain([StoreError("away")] * 2, repeat(set())))
    watching = asyncio.create_task(open_responses.watch(store))
    for _ in range(10):
        await asyncio.sleep(0)
    asked.assert_not_called()
    with open_responses.ended_by(ended.set, key_id=7):
        await ended.wait()
    watching.cancel()
    assert [set(call.args[0]) for call in asked.await_args_list[:3]] == [{7}] * 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]
