"""Iterations of a loop and branches of a parallel step, side by side."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
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
        try:
            async with _together() as group:
                self._begin = lambda: group.begin(work)
                self._begin()
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
    async with _together() as group:
        for each in work:
            group.begin(each)


class _Group:
    """Tasks of which the first failure cuts the others off; `has_failed` from then on."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.has_failed = False
        self._tasks = tasks

    def begin(self, work: Work) -> "asyncio.Task[None]":
        return self._tasks.create_task(self._run(work))

    async def _run(self, work: Work) -> None:
        _around.set((*_around.get(), self))
        try:
            await work()
        except BaseException:
            self.has_failed = True
            raise


_around: ContextVar[tuple[_Group, ...]] = ContextVar("_around", default=())
"""The groups that a task is in."""


def is_cut_off() -> bool:
    """Whether something beside this task, or beside one that awaits it, has failed.

    Python 3.11's task group swallows a cancellation that comes while it cuts off tasks of its own.
    """
    return any(group.has_failed for group in _around.get())


@asynccontextmanager
async def _together() -> AsyncIterator[_Group]:
    """A group of which the first failure is raised as itself."""
    try:
        async with asyncio.TaskGroup() as tasks:
            yield _Group(tasks)
    except BaseExceptionGroup as failures:
        raise _first(failures) from None


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
