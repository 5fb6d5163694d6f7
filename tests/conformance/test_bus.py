"""What every bus must do. A new bus joins by a line in `BUSES`; one between processes in `SHARED`, too."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial

import pytest

from runglass.bus.base import WORK, Bus, requests_to, runs_of
from runglass.bus.carrier import MOST_KEYS
from runglass.bus.nats import NatsCarrier
from runglass.bus.postgres import PostgresCarrier
from runglass.bus.process_bus import ProcessBus
from runglass.config.address import parse_nats_address
from tests.nats_server import nats_server
from tests.postgres_server import DEBIAN, postgres_database
from tests.waiting import until

Make = Callable[[], ProcessBus]
ECHO_S = 1000.0
"""However late a text comes back, no bus takes it for lost, which would wake everybody."""


def on_nats(address: str) -> ProcessBus:
    return ProcessBus(NatsCarrier(parse_nats_address(address)), echo_s=ECHO_S)


def on_postgres(address: str) -> ProcessBus:
    return ProcessBus(PostgresCarrier(address), echo_s=ECHO_S)


@contextmanager
def one_postgres(version: int | None = None) -> Iterator[Make]:
    with postgres_database(version) as address:
        yield partial(on_postgres, address)


@contextmanager
def one_nats() -> Iterator[Make]:
    with nats_server() as server:
        yield partial(on_nats, server.address)


SHARED: dict[str, Callable[[], AbstractContextManager[Make]]] = {
    "postgres": one_postgres,
    "nats": one_nats,
    **{f"postgres-{version}": partial(one_postgres, version) for version in DEBIAN},
}
SHARED_KINDS = [pytest.param(kind, marks=pytest.mark.slow) for kind in sorted(SHARED)]


@asynccontextmanager
async def running(*buses: ProcessBus) -> AsyncIterator[tuple[ProcessBus, ...]]:
    """The buses, which run until the block ends, and are connected at its start."""
    tasks = [asyncio.create_task(bus.run_forever()) for bus in buses]
    try:
        await connected(*buses)
        yield buses
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)


async def connected(*buses: ProcessBus) -> None:
    """Returns once all hear each other."""
    await until(lambda: all(bus.is_connected for bus in buses))


@asynccontextmanager
async def not_woken(bus: Bus, subject: str) -> AsyncIterator[None]:
    """Nobody wakes who listens to the subject before the block ends."""
    async with bus.listen(subject) as listener:
        asleep = asyncio.create_task(listener.wait(1000))
        yield
        # A wake-up that came just now is heard in the next turn of the loop.
        await asyncio.sleep(0)
        assert not asleep.done()
        asleep.cancel()


@pytest.fixture(params=["memory", *SHARED_KINDS])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    if request.param == "memory":
        yield Bus()
        return
    with SHARED[request.param]() as make:
        async with running(make()) as (own,):
            yield own


@pytest.fixture(params=SHARED_KINDS)
async def two(request: pytest.FixtureRequest) -> AsyncIterator[tuple[ProcessBus, ...]]:
    """The buses of two processes."""
    with SHARED[request.param]() as make:
        async with running(make(), make()) as buses:
            yield buses


async def test_one_wake_up_wakes_every_listener_of_the_run_and_no_other(bus: Bus) -> None:
    await bus.wake("run")
    async with bus.listen("run") as one, bus.listen("run") as two, bus.listen("other") as stranger:
        asleep = asyncio.create_task(stranger.wait(1000))
        waiting = [asyncio.create_task(listener.wait(1000)) for listener in (one, two)]
        await bus.wake("run")
        await asyncio.gather(*waiting)
        assert not asleep.done()
        await bus.wake("other")
        await asleep
    await bus.wake("run")


async def test_a_wake_up_before_a_wait_is_not_missed_and_counts_for_one_return(bus: Bus) -> None:
    async with bus.listen("run") as listener:
        await bus.wake("run")
        await listener.wait(1000)
        again = asyncio.create_task(listener.wait(1000))
        await asyncio.sleep(0)
        assert not again.done()
        await bus.wake("run")
        await again


LONG = "ü" * 1_000_000
ODD = ["", "a'; DROP TABLE run; --", "run.*.>", "\0", "\r\nPUB x 0\r\n", "\ud800", LONG, f"{LONG}2"]
SUBJECTS = [WORK, runs_of(1), runs_of(11), requests_to("run"), requests_to("runs of 1"), "run", "1", *ODD]


async def test_any_text_is_a_subject_and_wakes_no_other(bus: Bus) -> None:
    async with AsyncExitStack() as stack:
        listeners = {each: await stack.enter_async_context(bus.listen(each)) for each in SUBJECTS}
        for subject in SUBJECTS:
            waiting = {each: asyncio.create_task(listeners[each].wait(1000)) for each in SUBJECTS}
            await bus.wake(subject)
            await waiting[subject]
            await asyncio.sleep(0)
            assert [each for each, task in waiting.items() if task.done()] == [subject]
            for task in waiting.values():
                task.cancel()
    assert bus.fault is None


async def test_another_process_is_woken(two: tuple[ProcessBus, ...]) -> None:
    here, there = two
    for subject in (WORK, "run", "\ud800\0'"):
        async with there.listen(subject) as listener, there.listen("last") as last, not_woken(there, "other"):
            await here.wake(subject)
            await listener.wait(1000)
            await here.wake("last")
            await last.wait(1000)


@pytest.mark.parametrize("subjects", [MOST_KEYS, MOST_KEYS + 1])
async def test_as_many_subjects_as_one_text_can_carry_and_more_reach_another_process(
    two: tuple[ProcessBus, ...], subjects: int, caplog: pytest.LogCaptureFixture
) -> None:
    here, there = two
    async with AsyncExitStack() as stack:
        listeners = [
            await stack.enter_async_context(there.listen(f"run-{number}")) for number in range(subjects)
        ]
        for number in range(subjects):
            await here.wake(f"run-{number}")
        for listener in listeners:
            await listener.wait(1000)
    assert "the bus is unavailable" not in caplog.text, "one that was too long would be sent in vain"
