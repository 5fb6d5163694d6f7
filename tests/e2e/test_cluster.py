"""The parts of `prove cluster`: what is planned, what breaks between processes, and what would be seen."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest

from tests.prove.cluster import mostly_untimely
from tests.prove.clustering.hands import Hand, misdated, zombies
from tests.prove.clustering.network import Link

TIMEOUT_S = 60.0
START = datetime(2026, 1, 1, tzinfo=UTC)


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
