"""The parts of `prove cluster`: what is planned, what breaks between processes, and what would be seen."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from signal import SIGKILL
from types import SimpleNamespace
from typing import Any, get_args

import msgspec
import pytest

from runglass.config.settings import Settings
from runglass.support.clock import SystemClock
from tests.prove.child import Start, Told, set_clock, write_clock
from tests.prove.cluster import mostly_untimely
from tests.prove.clustering.hands import Hand, misdated, zombies
from tests.prove.clustering.network import Balancer, Link
from tests.prove.clustering.plan import Kind, OfService, plan
from tests.prove.killing.program import THIS, taken_from_history
from tests.prove.killing.server import KilledServer

MEMBERS, SERVICES = ["server 1", "worker 1", "worker 2"], ["postgres"]
TIMEOUT_S = 60.0
START = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_seed_has_one_plan() -> None:
    first = plan(7, 50, members=MEMBERS, services=SERVICES)
    assert plan(7, 50, members=MEMBERS, services=SERVICES) == first
    assert plan(8, 50, members=MEMBERS, services=SERVICES) != first


def test_everything_happens_to_everybody() -> None:
    planned = plan(0, 2000, members=MEMBERS, services=SERVICES)
    expected = {(name, kind) for name in MEMBERS for kind in get_args(Kind)}
    expected |= {(name, kind) for name in SERVICES for kind in get_args(OfService)}
    assert {(fault.target, fault.kind) for fault in planned} == expected


def test_some_are_frozen_and_cut_off_for_longer_than_their_lease() -> None:
    planned = plan(0, 200, members=MEMBERS, services=SERVICES, lease_s=1.0)
    for kind in ("freeze", "cut up", "cut down", "cut both"):
        lasting = [fault.lasts_s for fault in planned if fault.kind == kind and fault.target in MEMBERS]
        assert min(lasting) < 1.0 < max(lasting)


@pytest.mark.parametrize(
    ("hands", "lies"),
    [
        ([Hand(1, 1, 0, "a"), Hand(1, 1, 3, "a"), Hand(1, 2, 3, "b"), Hand(1, 2, 5, "b")], 0),
        ([Hand(1, 1, 0, "a"), Hand(1, 2, 0, "b"), Hand(1, 2, 2, "a")], 1),
        ([Hand(1, 1, 0, "a"), Hand(2, 1, 0, "b"), Hand(2, 1, 1, "a")], 1),
        ([Hand(1, 2, 4, "a"), Hand(1, 1, 4, "a")], 1),
        ([Hand(1, 1, 4, "a"), Hand(1, 1, 3, "a")], 1),
    ],
)
def test_only_who_has_a_run_may_write_to_it(hands: list[Hand], lies: int) -> None:
    assert len([*zombies(hands)]) == lies


def test_an_older_program_is_the_tree_of_its_commit() -> None:
    with taken_from_history("HEAD") as program:
        assert program.root != THIS.root
        assert (program.root / "src/runglass/__init__.py").exists()
        places = program.environment(tests=THIS.root)["PYTHONPATH"].split(os.pathsep)
        assert places == [str(program.root / "src"), str(THIS.root)]
    assert not program.root.exists()


def test_a_commit_that_is_not_in_the_history_is_told() -> None:
    with pytest.raises(AssertionError, match="has no commit '12345678'"), taken_from_history("12345678"):
        raise AssertionError("there is one")


def test_a_process_is_told_no_setting_that_has_its_default() -> None:
    start = Start(settings=Settings(lease_s=3.5), log=Path("log"))
    assert b'"settings":{"lease_s":3.5}' in start.line()
    assert Start.read(start.line()) == start


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """The port of a service that sends back what it is sent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(100):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_what_is_cut_comes_when_the_link_is_whole_again() -> None:
    async with echo() as port, Link.to(port) as link, Link.to(port) as whole, asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        for up, down in ((True, False), (False, True), (True, True)):
            link.cut(up=up, down=down)
            writer.write(b"hello")
            answer = asyncio.create_task(reader.readexactly(5))
            other, other_writer = await asyncio.open_connection("127.0.0.1", link.port)
            other_writer.write(b"other")
            # What is sent after it, and not held, comes.
            marker, marker_writer = await asyncio.open_connection("127.0.0.1", whole.port)
            marker_writer.write(b"later")
            assert await marker.readexactly(5) == b"later"
            marker_writer.close()
            assert not answer.done()
            link.heal()
            assert await answer == b"hello"
            assert await other.readexactly(5) == b"other"
            other_writer.close()
        writer.close()


async def test_a_link_that_is_reset_ends_its_connections() -> None:
    async with echo() as port, Link.to(port) as link, asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(b"hello")
        await reader.readexactly(5)
        link.reset()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_connections_go_to_servers_that_accept() -> None:
    async with echo() as port, asyncio.timeout(TIMEOUT_S):
        ports = [port]
        async with Balancer.before(lambda: ports, seed=1) as balancer:
            reader, writer = await asyncio.open_connection("127.0.0.1", balancer.port)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            writer.close()
            ports.clear()
            reader, writer = await asyncio.open_connection("127.0.0.1", balancer.port)
            assert await reader.read() == b""
            writer.close()


def test_the_clock_of_a_process_is_set_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SystemClock, "now", SystemClock.now)
    clock = tmp_path / "clock"
    write_clock(clock, 0.0)
    set_clock(clock)
    ahead = random.Random(1).choice((3600.0, -60.0))
    for far_s in (0.0, ahead):
        write_clock(clock, far_s)
        assert abs((SystemClock().now() - datetime.now(UTC)).total_seconds() - far_s) < 30.0


def hand(head: int, at_s: float, *, who: str = "a", fence: int = 1) -> Hand:
    return Hand(1, fence, head, who, at=START + timedelta(seconds=at_s))


@pytest.mark.parametrize(
    ("hands", "dates_s", "lies"),
    [
        # Made while another append was on its way, and stored late.
        ([hand(0, 0), hand(2, 9)], [0, 0.5], 0),
        ([hand(0, 0), hand(1, 1)], [60], 1),
        ([hand(0, 0), hand(1, 1)], [-60], 1),
        (
            [hand(0, 0), hand(1, 1), hand(1, 30, who="b", fence=2), hand(2, 31, who="b", fence=2)],
            [1, 30.5],
            0,
        ),
        ([hand(0, 0), hand(1, 1), hand(1, 30, who="b", fence=2), hand(2, 31, who="b", fence=2)], [1, 2], 1),
    ],
)
def test_an_event_is_dated_between_the_claim_of_its_run_and_its_append(
    hands: list[Hand], dates_s: list[float], lies: int
) -> None:
    dates = {1: [START + timedelta(seconds=at_s) for at_s in dates_s]}
    assert len([*misdated(hands, dates)]) == lies


@pytest.mark.parametrize(
    ("waits_ms", "lies"),
    [
        ([(1000, 990), (0, 0), (20, 0), (1500, 1490), (7000, 10)], 0),
        ([(2500, 1000), (2500, 0), (2500, 0), (2500, 20), (10, 0)], 1),
        ([(0, 1000), (0, 900), (0, 150), (20, 900), (900, 900), (7000, 10)], 1),
        ([(2500, 0), (2500, 0)], 0),
    ],
)
def test_most_waits_that_go_on_elsewhere_end_in_time(waits_ms: list[tuple[float, float]], lies: int) -> None:
    assert len([*mostly_untimely(waits_ms)]) == lies


async def test_a_server_that_is_killed_while_it_is_being_forked_is_killed_once_it_is_there(
    tmp_path: Path,
) -> None:
    forked = await asyncio.create_subprocess_exec("sleep", "60")
    lines = asyncio.StreamReader()
    parent: Any = SimpleNamespace(stdout=lines)
    server = KilledServer(parent, Settings(data=tmp_path))
    server.gone.clear()
    server.kill()
    told = [Told(kind="forked", pid=forked.pid), Told(kind="gone", pid=forked.pid, text="-9")]
    lines.feed_data(b"".join(msgspec.json.encode(each) + b"\n" for each in told))
    lines.feed_eof()
    await server._listen()
    async with asyncio.timeout(TIMEOUT_S):
        assert await forked.wait() == -SIGKILL
