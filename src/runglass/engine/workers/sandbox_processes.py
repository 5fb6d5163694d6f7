"""The processes of the sandbox: which project may use one, for how long and at which priority.

A process runs the code of one project only. Another one gets a process of its own, so memory that the
library leaves in a process between two sessions is never near the code of another project.
"""

import asyncio
import contextlib
import math
import os
import signal
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from runglass.engine.workers.process import BEYOND, LONG_NICE, LONG_S, WORKER_NICE, at_once, be_nice
from runglass.limits.shares import FairTurns, Shares

if TYPE_CHECKING:
    from pydantic_monty import AsyncMonty, AsyncMontySession, ResourceLimits

PROJECTS_KEPT = 16
"""Of so many projects idle processes are kept."""


class SandboxProcesses:
    """Processes for code; `slots` (by default two for each processor) go on at once, in fair turns.

    Sessions have the limits given, and one project has at most `most_each` at once. A turn lasts until the
    result of its session is read: else results of megabytes would pile up in front of their reader.
    """

    def __init__(
        self, limits: "ResourceLimits", *, slots: int | None = None, most_each: float = math.inf
    ) -> None:
        slots = slots or at_once()
        self._most = slots * BEYOND
        self._limits = limits
        self.turns = FairTurns(Shares(slots, most=self._most, most_each=most_each))
        self.pools: OrderedDict[int, _Pool] = OrderedDict()
        """By project."""
        self._closing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Ends all processes."""
        pools = list(self.pools.values())
        self.pools.clear()
        await asyncio.gather(*self._closing, *(pool.close() for pool in pools))
        if pools:
            # Their threads let go of their last Python objects a moment later. One that is caught by the end
            # of the interpreter while doing so aborts the process (seen in one exit of twenty).
            await asyncio.sleep(0.02)

    @contextlib.asynccontextmanager
    async def session(self, project_id: int) -> AsyncIterator["AsyncMontySession"]:
        """A session in a process of the project. One that takes long loses its priority."""
        pool = self._pool(project_id)
        # With a user it is not ended.
        pool.users += 1
        try:
            monty = pool.monty or await pool.start()
            checkout = monty.checkout(limits=self._limits, os_policy={"sleep_system_max": math.inf})
            async with checkout as session:
                pid = session.worker_pid
                assert pid is not None
                if pid not in pool.pids:
                    pool.pids.add(pid)
                    be_nice(pid, WORKER_NICE)
                loop = asyncio.get_running_loop()
                until_s = loop.time() + LONG_S
                lowering = loop.call_at(until_s, be_nice, pid, LONG_NICE)
                try:
                    yield session
                finally:
                    lowering.cancel()
                    if loop.time() >= until_s:
                        # A low priority cannot be raised again, so the process ends with its step.
                        pool.pids.discard(pid)
                        # One that is gone may have left its number to another.
                        with contextlib.suppress(OSError):
                            if os.getpriority(os.PRIO_PROCESS, pid) >= LONG_NICE:
                                os.kill(pid, signal.SIGKILL)
        finally:
            pool.users -= 1

    def _pool(self, project_id: int) -> "_Pool":
        """The pool of the project; one too many ends that of the project that has been idle for longest."""
        pool = self.pools.get(project_id)
        if pool is None:
            idle = [each for each, pool in self.pools.items() if pool.monty is not None and not pool.users]
            if len(self.pools) >= PROJECTS_KEPT and idle:
                closing = asyncio.create_task(self.pools.pop(idle[0]).close(), name="closing a sandbox")
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
            pool = self.pools[project_id] = _Pool(self._most)
        self.pools.move_to_end(project_id)
        return pool


class _Pool:
    """The processes of one project, once they are started; `users` are sessions that go on."""

    def __init__(self, most: int) -> None:
        self.users = 0
        self.pids: set[int] = set()
        self.monty: AsyncMonty | None = None
        self._most = most
        self._starting = asyncio.Lock()

    async def close(self) -> None:
        monty, self.monty = self.monty, None
        if monty is not None:
            await monty.__aexit__(None, None, None)

    async def start(self) -> "AsyncMonty":
        async with self._starting:
            if self.monty is None:
                from pydantic_monty import AsyncMonty

                # A task that has its turn never waits here.
                self.monty = await AsyncMonty(min_processes=0, max_processes=self._most).__aenter__()
            return self.monty
