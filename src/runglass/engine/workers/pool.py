"""A pool of processes that work on what callers send, within limits, while projects take turns at them.

They start when first needed, and are replaced when a limit ended them. Knows how to ask and not what is
asked: messages in, answers out.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Self, TypeVar

import msgspec

from runglass.engine.workers.process import WORKER_NICE, Forker, WorkerDied, WorkerProcess
from runglass.engine.workers.worker import Failure, State
from runglass.limits.offload import offload
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
        self._turns = FairTurns(Shares(slots, most=most or slots, most_each=most_each))
        self.forker = Forker(function, what=what, memory_limit_bytes=memory_limit_bytes, nice=nice)
        self.busy: set[WorkerProcess] = set()
        self.idle: list[tuple[int, WorkerProcess]] = []
        """Processes, each with the `owner` that it has served."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends the processes, and with them what is still asked."""
        for process in self.busy:
            process.kill()
        while self.idle:
            self.idle.pop()[1].close()
        await self.forker.aclose()

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
        """The function's answer, as `read` reads it, to what `write` gives; large ones are read in a thread.

        `what` tells of the task, which may take `limit_ms` of the processor, set by `setting`. The turn is
        that of the project `current_project`, unless `project_id` names another. A process serves one `owner`
        only. A caller that is cancelled meanwhile ends the process. Raises LimitHit, WorkerNotStarted, and
        the errors of the function and of `read`.
        """
        try:
            async with self._turns.turn(current_project.get() if project_id is None else project_id):
                message = await asyncio.to_thread(write)
                state, answer = await self._exchange(owner, message, limit_ms)
                if state == State.FAILED:
                    raise msgspec.json.decode(answer, type=Failure).error()
                return await offload(partial(read, answer), size_bytes=len(answer))
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

    async def _exchange(self, owner: int, message: bytes, limit_ms: int) -> tuple[State, bytes]:
        known = next((at for at in reversed(range(len(self.idle))) if self.idle[at][0] == owner), None)
        process = None if known is None else self.idle.pop(known)[1]
        if process is None or not process.is_open:
            if process is not None:
                process.close()
            process = await self.forker.open()
        self.busy.add(process)
        try:
            return await process.exchange(message, limit_ms=limit_ms)
        finally:
            self.busy.discard(process)
            if not process.is_closed:
                self.idle.append((owner, process))
            if len(self.idle) > IDLE_KEPT:
                self.idle.pop(0)[1].close()
