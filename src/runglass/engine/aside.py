"""Work on what callers send and the store holds, kept off the event loop where it is large.

One such piece of work goes on at a time: threads share one interpreter lock, and with each further one the
event loop would get it less often. Projects take turns.
"""

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar
from weakref import WeakKeyDictionary

from runglass.engine.fair import FairTurns, Shares

Result = TypeVar("Result")

LARGE_BYTES = 256 * 1024
"""What has up to this size is worked on at once: that takes a few milliseconds, 25 at the very worst."""

working_for: ContextVar[int] = ContextVar("working_for", default=0)
"""The id of the project that a task works for; 0 for nobody's."""

_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="aside")
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, FairTurns] = WeakKeyDictionary()


async def aside(work: Callable[[], Result], *, size_bytes: int, quick_bytes: int = LARGE_BYTES) -> Result:
    """The result of `work`, done in a thread if it is about so much that everybody else would wait for it.

    `quick_bytes` is how much is none too much.
    """
    return work() if size_bytes <= quick_bytes else await in_turn(work)


async def in_turn(work: Callable[[], Result]) -> Result:
    """The result of `work`, done in the thread for large work when it is the project's turn."""
    loop = asyncio.get_running_loop()
    turns = _turns.get(loop)
    if turns is None:
        turns = _turns[loop] = FairTurns(Shares(1, most=1))
    async with turns.turn(working_for.get()):
        return await loop.run_in_executor(_thread, _undisturbed, work)


def _undisturbed(work: Callable[[], Result]) -> Result:
    with gc_paused():
        return work()


_lock = threading.Lock()
_pauses = 0
_was_on = True


@contextmanager
def gc_paused() -> Iterator[None]:
    """Lets the garbage collector stand still: decoding a million values takes a tenth of the time then.

    It would look through all of them again and again, in native code that nobody else gets a turn in, and
    JSON holds no cycles.
    """
    global _pauses, _was_on
    with _lock:
        if not _pauses:
            _was_on = gc.isenabled()
        _pauses += 1
        gc.disable()
    try:
        yield
    finally:
        with _lock:
            _pauses -= 1
            if not _pauses and _was_on:
                # The new million is to count as old, or the next three collections would look through it.
                if gc.get_freeze_count():
                    # One look is the price: to thaw it would thaw what the start froze, too.
                    gc.collect(1)
                else:
                    gc.freeze()
                    gc.unfreeze()
                gc.enable()
