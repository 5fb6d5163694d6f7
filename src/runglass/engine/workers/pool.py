"""A pool of processes that work on what callers send, within limits, while projects take turns at them.

They start when first needed, and are replaced when a limit ended them. Knows how to ask and not what is
asked: messages in, answers out.
"""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

from runglass.engine.workers.process import WORKER_NICE, Forker, WorkerDied, WorkerProcess
from runglass.limits.pace import current_project
from runglass.limits.shares import FairTurns, Shares

T = TypeVar("T")

IDLE_KEPT = 16
"""So many idle processes are kept."""


class LimitHit(Exception):
    """A task was given up; the message says at which limit, its value, and how it can be raised."""


class WorkerPool:
    """Processes that answer with `function`, `MODULE:NAME`, which makes bytes of bytes.

    Each may have `memory_limit_bytes`, set by `memory_setting`; `what` names their purpose. `slots` of them
    are busy at once; of one project no more than `most_each`, and those of further projects beside them up to
    `most`. Of those that wait the project is next that has used least. A context manager, for any number of
    tasks at once.
    """

    def __init__(
        self,
        function: str,
        *,
        what: str,
        memory_limit_bytes: int,
        memory_setting: str = "fixed",
        slots: int = 2,
        most: int | None = None,
        most_each: float = 1,
        nice: int = WORKER_NICE,
    ) -> None:
        self._memory_limit_bytes = memory_limit_bytes
        self._memory_setting = memory_setting
        most = most or slots
        # Each thread talks to one process at a time, so there are as many of both.
        self._threads = ThreadPoolExecutor(most, thread_name_prefix=f"runglass-{what}")
        self._turns = FairTurns(Shares(slots, most=most, most_each=most_each))
        self.forker = Forker(function, what=what, memory_limit_bytes=memory_limit_bytes, nice=nice)
        self._busy: set[_Task] = set()
        self.idle: list[tuple[int, WorkerProcess]] = []
        """Processes, each with the `owner` that it has served."""

    @property
    def processes(self) -> list[WorkerProcess]:
        """All that were started and not closed."""
        busy = (task.process for task in self._busy if task.process is not None)
        return [*busy, *(process for _, process in self.idle)]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends the processes, and with them what is still asked."""
        try:
            # No task waits for the answers that are still to come.
            for task in self._busy:
                task.give_up()
            await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        finally:
            for process in self.processes:
                process.close()
            self.forker.close()

    async def call(
        self,
        write: Callable[[], bytes],
        read: Callable[[bytes], T],
        *,
        what: str,
        limit_ms: int,
        setting: str = "fixed",
        project_id: int | None = None,
        owner: int = 0,
    ) -> T:
        """The function's answer, as `read` reads it, to what `write` gives; both are called in a thread.

        `what` tells of the task, which may take `limit_ms` of the processor, set by `setting`. The turn is
        that of the project `current_project`, unless `project_id` names another. A process serves one `owner`
        only. A caller that is cancelled meanwhile ends the process. Raises LimitHit, WorkerNotStarted, and
        the errors of `read`.
        """
        try:
            async with self._turns.turn(current_project.get() if project_id is None else project_id):
                return await self._answer(owner, functools.partial(self._exchange, write, read, limit_ms))
        except WorkerDied as died:
            time = f"{limit_ms:,} ms"
            memory = f"{self._memory_limit_bytes:,} bytes"
            if died.cause == "time":
                limit = f"it took more than {time} {what} (setting {setting})"
            elif died.cause == "memory":
                limit = f"it took more than {memory} of memory {what}, or too deep a recursion"
                limit += f" (setting {self._memory_setting})"
            else:
                limit = f"it took too much memory or time {what}; the limits are {time} (setting {setting})"
                limit += f" and {memory} (setting {self._memory_setting})"
            raise LimitHit(limit) from died

    async def _answer(self, owner: int, exchange: Callable[["_Task"], T]) -> T:
        task = _Task()
        for index in range(len(self.idle) - 1, -1, -1):
            if self.idle[index][0] == owner:
                task.process = self.idle.pop(index)[1]
                break
        self._busy.add(task)
        work = self._threads.submit(exchange, task)
        try:
            return await asyncio.wrap_future(work)
        except asyncio.CancelledError:
            task.give_up()
            raise
        finally:
            if work.done():
                self._put_back(owner, task)
            else:
                # The thread finds out in a moment that the caller is gone.
                loop = asyncio.get_running_loop()
                work.add_done_callback(lambda _: loop.call_soon_threadsafe(self._put_back, owner, task))

    def _exchange(
        self, write: Callable[[], bytes], read: Callable[[bytes], T], limit_ms: int, task: "_Task"
    ) -> T:
        """In a thread."""
        if task.process is None or not task.process.is_open:
            if task.process is not None:
                task.process.close()
            task.process = self.forker.open()
        if task.is_given_up:
            raise WorkerDied("unknown")
        return read(task.process.exchange(write(), limit_ms=limit_ms))

    def _put_back(self, owner: int, task: "_Task") -> None:
        self._busy.discard(task)
        if task.process is not None and not task.process.is_closed:
            self.idle.append((owner, task.process))
        if len(self.idle) > IDLE_KEPT:
            self.idle.pop(0)[1].close()


class _Task:
    """What goes on in a thread, and the process that is asked, once there is one."""

    def __init__(self) -> None:
        self.process: WorkerProcess | None = None
        self.is_given_up = False

    def give_up(self) -> None:
        self.is_given_up = True
        if self.process is not None:
            self.process.kill()
