"""What every bus must do. A new bus joins by a line in `BUSES`."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from runglass.bus.base import WORK, Bus, requests_to, runs_of
from runglass.bus.memory import MemoryBus

BUSES: dict[str, Callable[[], Bus]] = {"memory": MemoryBus}


@pytest.fixture(params=BUSES)
def bus(request: pytest.FixtureRequest) -> Bus:
    return BUSES[request.param]()


async def test_a_wake_up_between_two_waits_is_not_missed(bus: Bus) -> None:
    async with bus.listen("run") as listener:
        await bus.wake("run")
        async with asyncio.timeout(5):
            await listener.wait(1000)


async def test_one_wake_up_wakes_every_listener_of_the_run_and_no_other(bus: Bus) -> None:
    async with bus.listen("run") as one, bus.listen("run") as two, bus.listen("other") as stranger:
        asleep = asyncio.create_task(stranger.wait(1000))
        waiting = [asyncio.create_task(listener.wait(1000)) for listener in (one, two)]
        await bus.wake("run")
        async with asyncio.timeout(5):
            await asyncio.gather(*waiting)
        assert not asleep.done()
        await bus.wake("other")
        async with asyncio.timeout(5):
            await asleep


async def test_a_wait_ends_by_itself_after_its_timeout(bus: Bus) -> None:
    async with bus.listen("run") as listener, asyncio.timeout(5):
        await listener.wait(0.001)


async def test_a_wake_up_counts_for_one_return(bus: Bus) -> None:
    async with bus.listen("run") as listener:
        await bus.wake("run")
        await listener.wait(1000)
        again = asyncio.create_task(listener.wait(1000))
        await asyncio.sleep(0)
        assert not again.done()
        await bus.wake("run")
        async with asyncio.timeout(5):
            await again


async def test_waking_a_run_without_listeners_does_nothing(bus: Bus) -> None:
    await bus.wake("run")
    async with bus.listen("run"):
        await bus.wake("run")
    await bus.wake("run")


async def test_subjects_of_different_kinds_do_not_wake_each_other(bus: Bus) -> None:
    subjects = [WORK, runs_of(1), runs_of(11), requests_to("run"), requests_to("runs of 1"), "run", "1"]
    async with AsyncExitStack() as stack:
        listeners = {each: await stack.enter_async_context(bus.listen(each)) for each in subjects}
        for subject in subjects:
            waiting = {each: asyncio.create_task(listeners[each].wait(1000)) for each in subjects}
            await bus.wake(subject)
            async with asyncio.timeout(5):
                await waiting[subject]
            await asyncio.sleep(0)
            assert [each for each, task in waiting.items() if task.done()] == [subject]
            for task in waiting.values():
                task.cancel()
