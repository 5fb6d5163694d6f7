"""Watches the event loop and logs each stall, with the code that blocked it.

A computation on the loop keeps every request waiting, and no other tool shows where. The watch has a thread
of its own, so that it sees the code while the loop is blocked. Knows nothing of the server: a loop in, lines
of the log out.
"""

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

_BEATS = 2
"""Heartbeats of the loop within the limit. With a limit of 100 ms they take 0.3 % of a processor."""
SEVERE_MS = 1000.0
"""Shorter stalls are for who looks for them: their lines are debug, those of longer ones warnings."""
_FRAMES = 4


class _LoopWatch:
    """The watch of the running loop: `beat` is called on it, `watch` in a thread."""

    def __init__(self, limit_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit_s, self._interval_s = limit_s, limit_s / _BEATS
        self._thread_id = threading.get_ident()
        self.stop = threading.Event()

    def beat(self) -> None:
        self._beat_s, self._cpu_s = time.monotonic(), time.process_time()
        if not self.stop.is_set():
            self._loop.call_later(self._interval_s, self.beat)

    def watch(self) -> None:
        while not self.stop.wait(self._interval_s):
            beat_s, cpu_s = self._beat_s, self._cpu_s
            # The next heartbeat is due some time after the last one. The time beyond that is the stall.
            due_s = beat_s + self._interval_s
            if time.monotonic() - due_s <= self._limit_s:
                continue
            cause = self._cause()
            while self._beat_s == beat_s and not self.stop.wait(0.005):
                pass
            stood_ms = (time.monotonic() - due_s) * 1000
            # Where the process hardly computed, it waited: for a disk, or for a busy processor.
            log.log(
                logging.WARNING if stood_ms >= SEVERE_MS else logging.DEBUG,
                "the event loop stood still for %.0f ms (the process computed for %d ms of them): %s",
                *(stood_ms, (time.process_time() - cpu_s) * 1000, cause),
            )

    def _cause(self) -> str:
        """The task, and the innermost lines of Runglass's own code, behind that of a library they called."""
        try:
            task = asyncio.current_task(self._loop)
        except RuntimeError:
            task = None
        frames = traceback.walk_stack(sys._current_frames().get(self._thread_id))
        lines = [f"{frame.f_globals.get('__name__')}:{line} {frame.f_code.co_name}" for frame, line in frames]
        ours = [line for line in lines[1:] if line.startswith("runglass.")]
        name = "no task" if task is None else f"task {task.get_name()!r}"
        return f"{name}, at {' < '.join([*lines[:1], *ours[:_FRAMES]])}"


@contextmanager
def watched(*, limit_ms: int) -> Iterator[None]:
    """Watches the running loop until the block ends."""
    watch = _LoopWatch(limit_ms / 1000)
    watch.beat()
    thread = threading.Thread(target=watch.watch, name="runglass-loop-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        watch.stop.set()
        thread.join()
