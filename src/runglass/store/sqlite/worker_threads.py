"""Threads that do the blocking work of event loops.

All work that waits when a thread comes round is done in one go and answered with one wake-up of the loop: a
hand-over costs several times what a small read or write does.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class WorkItem(NamedTuple):
    """Work on a connection, with the task that waits for it and its event loop."""

    work: Callable[[sqlite3.Connection], Any]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"


class WorkResult(NamedTuple):
    """The result of a job: `error`, or where that is None, `result`."""

    job: WorkItem
    result: Any
    error: BaseException | None


class WorkerThreads:
    """So many threads with one queue; each hands up to `most` jobs at a time to `do`, which never raises."""

    def __init__(
        self,
        name: str,
        do: Callable[[list[WorkItem]], list[WorkResult]],
        *,
        threads: int = 1,
        most: int = 1,
    ) -> None:
        self.name = name
        self._do = do
        self._most = most
        self._jobs: queue.SimpleQueue[WorkItem | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work_on, name=f"{name}-{number}") for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, work: Callable[[sqlite3.Connection], Any]) -> "asyncio.Future[Any]":
        """Queues work; the running loop's future will have its result."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._jobs.put(WorkItem(work, loop, future))
        return future

    def end(self) -> None:
        """Lets the threads end once everything that is queued has been done. Nothing may be put any more."""
        self._jobs.put(None)

    def join(self) -> None:
        """Returns when every thread has ended."""
        for thread in self._threads:
            thread.join()

    def _work_on(self) -> None:
        while self._go_round():
            pass
        # The mark of the end is for every thread.
        self._jobs.put(None)

    def _go_round(self) -> bool:
        """Does what waits; False at the mark of the end. Of its own, so that nothing done is held on to."""
        job = self._jobs.get()
        if job is None:
            return False
        batch = [job]
        while len(batch) < self._most:
            try:
                following = self._jobs.get_nowait()
            except queue.Empty:
                break
            if following is None:
                # Finish this batch, then find the mark again.
                self._jobs.put(None)
                break
            batch.append(following)
        outcomes_of: dict[asyncio.AbstractEventLoop, list[WorkResult]] = {}
        for outcome in self._do(batch):
            outcomes_of.setdefault(outcome.job.loop, []).append(outcome)
        for loop, outcomes in outcomes_of.items():
            # A loop that has been closed has no waiting task left.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(resolve, outcomes)
        return True


def resolve(outcomes: Sequence[WorkResult]) -> None:
    """Hands the results to the waiting tasks; runs on the loop of the jobs."""
    for job, result, error in outcomes:
        if job.future.done():
            continue
        if error is None:
            job.future.set_result(result)
        else:
            job.future.set_exception(error)
