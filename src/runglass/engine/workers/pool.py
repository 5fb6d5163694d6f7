"""A pool of processes that work on what callers send, within limits, while projects take turns at them.

They start when first needed, and are replaced when a limit ended them. Knows how to ask and not what is
asked: messages in, answers out.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

from runglass.engine.workers.process import WorkerDied, WorkerProcess
from runglass.limits.pace import current_project
from runglass.limits.shares import FairTurns, Shares

T = TypeVar("T")

WALL_FACTOR = 10
"""How much longer than its limit of the processor a task may take: others may have the processor."""


class LimitHit(Exception):
    """A task was given up; the message says at which limit, its value, and how it can be raised."""


class OutOfMemory(Exception):
    """The process said itself that its memory did not do."""


class WorkerPool:
    """Processes of a module, `python -m MODULE MEMORY_LIMIT`, each with `memory_limit_bytes` of memory.

    `memory_setting` is the setting that has that limit; `what` names the purpose of the processes. A context
    manager, for any number of tasks at once. A project's tasks go on one at a time, so that one cannot hold
    all processes; of those that wait the project is next that has used least.
    """

    def __init__(
        self, module: str, *, what: str, memory_limit_bytes: int, memory_setting: str, max_processes: int = 2
    ) -> None:
        self._module = module
        self._what = what
        self._memory_limit_bytes = memory_limit_bytes
        self._memory_setting = memory_setting
        # Each thread talks to one process at a time, so there are as many of both.
        self._threads = ThreadPoolExecutor(max_processes, thread_name_prefix=f"runglass-{what}")
        self.processes: set[WorkerProcess] = set()
        """All that were ever needed."""
        self._idle: list[WorkerProcess] = []
        self._asking = threading.Lock()
        self._turns = FairTurns(Shares(max_processes, most=max_processes, most_each=1))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends the processes, and with them what is still asked."""
        try:
            # No task waits for the answers that are still to come.
            for process in list(self.processes):
                process.kill()
            await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        finally:
            for process in list(self.processes):
                process.close()

    async def asked(
        self,
        write: Callable[[], bytes],
        read: Callable[[bytes], T],
        *,
        what: str,
        limit_ms: int,
        setting: str,
        project_id: int | None = None,
    ) -> T:
        """The answer, as `read` reads it, to the message that `write` gives; both are called in a thread.

        `what` tells of the task, which may take `limit_ms` of the processor, set by `setting`. The turn is
        that of the project `current_project`, unless `project_id` names another. A caller that is cancelled
        meanwhile ends the process. Raises LimitHit, WorkerNotStarted, and the errors of `read`.
        """
        try:
            async with self._turns.turn(current_project.get() if project_id is None else project_id):
                return await self._answer(write, read, limit_s=WALL_FACTOR * limit_ms / 1000)
        except WorkerDied as died:
            if died.cause == "memory":
                raise LimitHit(self._memory(what)) from died
            if died.cause != "time":
                message = f"it took too much memory or time {what}; the limits are {limit_ms:,} ms (setting"
                raise LimitHit(
                    f"{message} {setting}) and {self._memory_limit_bytes:,} bytes"
                    f" (setting {self._memory_setting})"
                ) from died
            raise LimitHit(f"it took more than {limit_ms:,} ms {what} (setting {setting})") from died
        except OutOfMemory as error:
            raise LimitHit(self._memory(what)) from error

    async def _answer(self, write: Callable[[], bytes], read: Callable[[bytes], T], *, limit_s: float) -> T:
        asked: list[WorkerProcess] = []
        gone = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._threads, self._exchange, write, read, limit_s, asked, gone
            )
        except asyncio.CancelledError:
            # Its turn is over, and so is its hold. Processes that other turns have by now are not in `asked`.
            gone.set()
            with self._asking:
                for process in asked:
                    process.kill()
            raise

    def _exchange(
        self,
        write: Callable[[], bytes],
        read: Callable[[bytes], T],
        limit_s: float,
        asked: list[WorkerProcess],
        gone: threading.Event,
    ) -> T:
        """In a thread, which talks to one process; that is in `asked` meanwhile."""
        try:
            process = self._idle.pop()
        except IndexError:
            process = self._new_process()
        asked.append(process)
        try:
            return read(process.exchange(write(), limit_s=limit_s, gone=gone))
        finally:
            with self._asking:
                asked.clear()
            self._idle.append(process)

    def _memory(self, what: str) -> str:
        limit = f"{self._memory_limit_bytes:,} bytes of memory"
        return f"it took more than {limit} {what}, or too deep a recursion (setting {self._memory_setting})"

    def _new_process(self) -> WorkerProcess:
        limit = str(self._memory_limit_bytes)
        process = WorkerProcess(self._module, what=self._what, arguments=(limit,))
        self.processes.add(process)
        return process
