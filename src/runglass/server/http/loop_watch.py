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
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger(__name__)

_BEATS = 2
"""Heartbeats of the loop within the limit. With a limit of 100 ms they take 0.3 % of a processor."""
SEVERE_MS = 1000.0
"""Shorter stalls are for who looks for them: their lines are debug, those of longer ones warnings."""
_FRAMES = 4
_OURS = "runglass"


class LoopWatch:
    """The watch of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, limit_s: float) -> None:
        self._loop = loop
        self._limit_s = limit_s
        self._thread_id = threading.get_ident()
        self._beat_s = time.monotonic()
        self._cpu_s = time.process_time()
        self._timer: asyncio.TimerHandle | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="runglass-loop-watch", daemon=True)

    def start(self) -> None:
        """Starts the watch. Must be called on the loop."""
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        """Ends the watch. Must be called on the loop."""
        self._stop.set()
        if self._timer is not None:
            self._timer.cancel()
        self._thread.join()

    def _beat(self) -> None:
        self._beat_s, self._cpu_s = time.monotonic(), time.process_time()
        self._timer = self._loop.call_later(self._limit_s / _BEATS, self._beat)

    def _watch(self) -> None:
        seen_s = 0.0
        while not self._stop.wait(self._limit_s / _BEATS):
            beat_s = self._beat_s
            # The next heartbeat is due some time after the last one. The time beyond that is the stall.
            stood_s = time.monotonic() - beat_s - self._limit_s / _BEATS
            if stood_s > self._limit_s and beat_s != seen_s:
                seen_s = beat_s
                self._tell(beat_s, self._cause())

    def _tell(self, beat_s: float, cause: str) -> None:
        cpu_s = self._cpu_s
        while self._beat_s == beat_s and not self._stop.wait(0.005):
            pass
        stood_ms = (time.monotonic() - beat_s - self._limit_s / _BEATS) * 1000
        busy_ms = (time.process_time() - cpu_s) * 1000
        # Where the process hardly computed, it waited: for a disk, or for a busy processor.
        log.log(
            logging.WARNING if stood_ms >= SEVERE_MS else logging.DEBUG,
            "the event loop stood still for %.0f ms (the process computed for %d ms of them): %s",
            stood_ms,
            busy_ms,
            cause,
        )

    def _cause(self) -> str:
        try:
            task = asyncio.current_task(self._loop)
        except RuntimeError:
            task = None
        frame = sys._current_frames().get(self._thread_id)
        lines = [f"{path}:{line} {name}" for path, line, name in _frames(frame)]
        if frame is not None and not _is_ours(frame):
            lines.insert(0, f"{frame.f_globals.get('__name__', '')}:{frame.f_lineno} {frame.f_code.co_name}")
        name = "no task" if task is None else f"task {task.get_name()!r}"
        return f"{name}, at {' < '.join(lines) or 'no line of ours'}"


def _frames(frame: FrameType | None) -> Iterator[tuple[str, int, str]]:
    """The innermost lines of Runglass's own code, the deepest first."""
    found = 0
    while frame is not None and found < _FRAMES:
        if _is_ours(frame):
            yield frame.f_globals["__name__"], frame.f_lineno, frame.f_code.co_name
            found += 1
        frame = frame.f_back


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).split(".")[0] == _OURS


@contextmanager
def watched(*, limit_ms: int) -> Iterator[None]:
    """Watches the running loop until the block ends."""
    watch = LoopWatch(asyncio.get_running_loop(), limit_s=limit_ms / 1000)
    watch.start()
    try:
        yield
    finally:
        watch.stop()
