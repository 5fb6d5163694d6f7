"""Iterations of a loop and branches of a parallel step, side by side."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

MOST_WORKERS = 1_000
"""Workers of all loops of a run, beside the first one of each."""

Work = Callable[[], Coroutine[Any, Any, None]]


class Workers:
    """The number of those of a run's loops; without the first one of each loop, which may always begin."""

    def __init__(self) -> None:
        self.count = 0

    @property
    def is_full(self) -> bool:
        """Whether no loop of the run may have one more."""
        return self.count >= MOST_WORKERS


class LoopWorkers:
    """Those of one loop, at most `most`. Each lets the next one begin, as long as the run has not too many.

    Loops in loops would otherwise begin whatever they may have side by side, level by level: tens of
    thousands of tasks, and as many to cut off at once when one of them fails.
    """

    def __init__(self, most: int, workers: Workers) -> None:
        self._more = max(most - 1, 0)
        self._workers = workers
        self._begin: Callable[[], asyncio.Task[None]] | None = None

    async def run(self, work: Work) -> None:
        """Awaits the first worker and all that it has let begin. The first failure cuts the others off."""
        if not self._more:
            await work()
            return
        group = _Group()
        self._begin = lambda: group.begin(work)
        self._begin()
        try:
            await group.join()
        finally:
            # Else the loop would hold itself, and a run that has ended be left to the garbage collector.
            self._begin = None

    def add(self) -> None:
        """One more worker begins, if the loop and the run may have one."""
        if self._more and self._begin is not None and not self._workers.is_full:
            self._more -= 1
            self._workers.count += 1
            self._begin().add_done_callback(self._ended)

    def _ended(self, _: Awaitable[None]) -> None:
        self._workers.count -= 1


async def side_by_side(work: Sequence[Work]) -> None:
    """Awaits all; the first failure cuts the others off and is raised as itself."""
    if len(work) == 1:
        await work[0]()
        return
    group = _Group()
    for each in work:
        group.begin(each)
    await group.join()


class _Group:
    """Tasks of which the first failure cuts the others off.

    No `asyncio.TaskGroup`: a cancellation that comes while that cuts off its tasks is swallowed up to Python
    3.12, and from 3.13 on raised again in whatever is awaited after the group.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._is_cut_off = False
        self._failure: BaseException | None = None

    def begin(self, work: Work) -> "asyncio.Task[None]":
        task = asyncio.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        if self._is_cut_off:
            task.cancel()
        return task

    async def join(self) -> None:
        """Returns when all have ended. Raises CancelledError if it came meanwhile, else the first failure."""
        cancelled = False
        while self._tasks:
            try:
                await self._over.wait()
            except asyncio.CancelledError:
                cancelled = True
                self._cut_off()
        failure, self._failure = self._failure, None
        if cancelled:
            raise asyncio.CancelledError
        if failure is not None:
            try:
                raise failure
            finally:
                # Its traceback has this frame: a run that has ended would be left to the garbage collector.
                del failure

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        failure = None if task.cancelled() else task.exception()
        if failure is not None and not self._is_cut_off:
            self._failure = failure
            self._cut_off()
        if not self._tasks:
            self._over.set()

    def _cut_off(self) -> None:
        # Once: what a task does when it is cancelled is not to be cancelled in turn.
        if not self._is_cut_off:
            self._is_cut_off = True
            for task in self._tasks:
                task.cancel()
