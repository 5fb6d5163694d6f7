"""Iterations of a loop and branches of a parallel step, side by side, and the one output that theirs become.

A loop may gather hundreds of thousands. They are held as JSON, which the loop's own output is joined from.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Self

from runglass.engine.payload import Payload, branches_of, items_of
from runglass.engine.run_memory import RunMemory
from runglass.engine.steps.run_limits import RunUsage
from runglass.limits.memory import COUNTED_BYTES
from runglass.limits.offload import offload

MOST_WORKERS = 1_000
"""Workers of all loops of a run, beside the first one of each."""

Work = Callable[[], Coroutine[Any, Any, None]]


class LoopWorkers:
    """Those of one loop, at most `most`. Each lets the next one begin, as long as the run has not too many.

    Loops in loops would otherwise begin whatever they may have side by side, level by level: tens of
    thousands of tasks, and as many to cut off at once when one of them fails.
    """

    def __init__(self, most: int, usage: RunUsage) -> None:
        self._more = max(most - 1, 0)
        self._usage = usage
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
        if self._more and self._begin is not None and self._usage.workers < MOST_WORKERS:
            self._more -= 1
            self._usage.workers += 1
            self._begin().add_done_callback(self._ended)

    def _ended(self, _: Awaitable[None]) -> None:
        self._usage.workers -= 1


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
        self._is_cancelled = False
        self._failure: BaseException | None = None

    def begin(self, work: Work) -> "asyncio.Task[None]":
        task = asyncio.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        if self._is_cancelled:
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
                self._cancel_all()
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
        if failure is not None and not self._is_cancelled:
            self._failure = failure
            self._cancel_all()
        if not self._tasks:
            self._over.set()

    def _cancel_all(self) -> None:
        # Once: what a task does when it is cancelled is not to be cancelled in turn.
        if not self._is_cancelled:
            self._is_cancelled = True
            for task in self._tasks:
                task.cancel()


class LoopOutputs:
    """The last output of each of `count` iterations. A context manager: held outputs are let go of."""

    def __init__(self, memory: RunMemory, step_id: str, count: int) -> None:
        self._memory = memory
        self._step_id = step_id
        # As JSON, but for those that may be put away.
        self._outputs: list[Payload | bytes] = [b"null"] * count
        self._size = 0
        self._held = 0
        self._uncounted = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._memory.hold(-self._held)

    def add(self, index: int, output: Payload) -> None:
        """Takes in the output of one iteration. Raises StepFailure where memory is full."""
        if output.holding is not None and output.holding.address is not None:
            self._outputs[index] = output
            self._size += output.holding.size
            return
        data = self._outputs[index] = output.json
        self._size += len(data)
        self._uncounted += len(data)
        if self._uncounted >= COUNTED_BYTES:
            self._memory.require_room(self._uncounted, step_id=self._step_id)
            self._memory.hold(self._uncounted)
            self._held, self._uncounted = self._held + self._uncounted, 0

    async def joined(self) -> Payload:
        """The output of the loop."""
        large = [output for output in self._outputs if isinstance(output, Payload)]
        async with self._memory.using(large, decoded=False):
            return Payload.encoded(await offload(partial(items_of, self._outputs), size_bytes=self._size))


async def joined_branches(outputs: Mapping[str, Payload], memory: RunMemory) -> Payload:
    """The output of a parallel step, from the last output of each branch."""
    size = sum(output.size_bytes for output in outputs.values())
    if size < COUNTED_BYTES:
        return Payload({name: output.value for name, output in outputs.items()})
    large = [output for output in outputs.values() if output.holding is not None]
    async with memory.using(large, decoded=False):
        return Payload.encoded(await offload(partial(branches_of, outputs), size_bytes=size))
