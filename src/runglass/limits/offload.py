"""Work on what callers send and the store holds, kept off the event loop where it is large.

One such piece of work goes on at a time (`pace`): threads share one interpreter lock, and with each further
one the event loop would get it less often.
"""

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from runglass.limits.pace import (
    LARGE_MOVE_BYTES,
    Pacer,
    WorkPiece,
    current_project,
    others_are_active,
    pace_of,
    paced,
    rest_s,
    switch_often,
)

Result = TypeVar("Result")

LARGE_BYTES = 256 * 1024
"""Values up to this size are worked on at once: that takes a few milliseconds, 15 at the very worst."""

COLLECT_S = 60.0
"""So often at most all objects are looked through beside large work, which takes some 30 ms, and several
times as long with the libraries of providers."""

_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="offload")


async def offload(work: Callable[[], Result], *, size_bytes: int, quick_bytes: int = LARGE_BYTES) -> Result:
    """The result of `work`, done in a thread if it is so large that all other tasks would wait for it.

    `quick_bytes` is how much is none too much.
    """
    if size_bytes > quick_bytes:
        return await offload_in_turn(work)
    if size_bytes <= LARGE_MOVE_BYTES:
        return work()
    # None is too much, but many callers at once would be.
    async with paced("loop", current_project.get()):
        with gc_paused():
            return work()


async def offload_in_turn(work: Callable[[], Result]) -> Result:
    """The result of `work`, done in the thread for large work when it is the project's turn."""
    loop = asyncio.get_running_loop()
    project_id = current_project.get()
    pace = pace_of("thread")
    async with pace.piece(project_id) as piece:
        return await loop.run_in_executor(_thread, _undisturbed, work, piece, _Part(project_id, pace))


def yield_to_others() -> None:
    """For large work, between two native calls: rests while others are about. Elsewhere it does nothing.

    Nor where another task waits for the thread: then the work had better come to its end.
    """
    part = _part.get()
    if part is not None and not part.pace.is_wanted and others_are_active(part.project_id):
        time.sleep(rest_s(time.thread_time() - part.since_s))
        part.since_s = time.thread_time()


class _Part:
    """Large work: its project, its pace, and its thread's time of the processor when it last rested."""

    def __init__(self, project_id: int, pace: Pacer) -> None:
        self.project_id = project_id
        self.pace = pace
        self.since_s = 0.0


_part: ContextVar[_Part | None] = ContextVar("part", default=None)
"""What the thread for large work is at; None in every other thread."""


def _undisturbed(work: Callable[[], Result], piece: WorkPiece, part: _Part) -> Result:
    _part.set(part)
    part.since_s = time.thread_time()
    switch_often("large work", True)
    try:
        with gc_paused():
            return work()
    finally:
        switch_often("large work", False)
        _part.set(None)
        piece.worked_s = time.thread_time() - part.since_s


_lock = threading.Lock()
_pauses = 0
_was_on = True
_collected_s = time.monotonic()


@contextmanager
def gc_paused(*, collect_s: float = COLLECT_S) -> Iterator[None]:
    """Lets the garbage collector stand still: decoding a million values takes a tenth of the time then.

    It would look through all of them again and again, in native code that lets no other task in, and
    JSON holds no cycles. After `collect_s` without one, a collection comes at the end.
    """
    global _pauses, _was_on, _collected_s
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
                # What the start froze counts as old from now on, too: collections of everything are rare.
                gc.freeze()
                gc.unfreeze()
                gc.enable()
                # That begins the collector's count anew: beside much large work it would never look at all.
                if time.monotonic() - _collected_s > collect_s:
                    gc.collect()
                    _collected_s = time.monotonic()
