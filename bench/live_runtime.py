"""A runtime whose loop goes on between messages: it keeps its lease, and hears what other processes do."""

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable

import uvloop

from bench.answering import Message, answer
from bench.children import READY_S
from runglass.bus.process_bus import ProcessBus
from runglass.config.settings import Settings
from runglass.runtime.composition import open_runtime
from runglass.runtime.runtime import Runtime

Work = Callable[[Message], Awaitable[Message]]


def answer_with(settings: Settings, begin: Callable[[Runtime], Awaitable[Work]]) -> None:
    """Answers every line with what the work of a runtime with these settings says."""
    loop, stop, ready = uvloop.new_event_loop(), asyncio.Event(), queue.SimpleQueue[Work]()

    async def live() -> None:
        async with open_runtime(settings) as runtime:
            if isinstance(runtime.bus, ProcessBus) and not runtime.bus.is_connected:
                # Every listener is woken once the bus carries.
                async with runtime.bus.listen("anything") as listener:
                    await listener.wait(READY_S / 2)
            ready.put(await begin(runtime))
            await stop.wait()

    async def work_on(work: Work, message: Message) -> Message:
        return await work(message)

    thread = threading.Thread(target=loop.run_until_complete, args=(live(),))
    thread.start()
    try:
        work = ready.get(timeout=READY_S)
        answer(lambda message: asyncio.run_coroutine_threadsafe(work_on(work, message), loop).result())
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
