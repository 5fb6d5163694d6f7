"""Processes on a virtual clock: time jumps to the next sleeper when nobody can do anything now.

A simulated process is all that runs in one context. It can be halted between any two turns of the event loop,
as by SIGKILL or SIGSTOP, without a line of its code being run for it; what came for it meanwhile is held and
comes when it goes on. Nothing here depends on threads, addresses or the real time, so that one seed always
gives the same order. What the processes do is not known here.
"""

import asyncio
import itertools
import math
import selectors
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, TypeVarTuple

Result = TypeVar("Result")
Ts = TypeVarTuple("Ts")

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
MANY_TURNS = 100_000
"""More turns of the loop at one moment than any honest work takes."""

_current: ContextVar["Process | None"] = ContextVar("process", default=None)


class Stuck(AssertionError):
    """Nobody can do anything any more, now or later, or somebody does so without end."""


class Process:
    """What runs on its behalf: its tasks, and theirs. `let_go` says that it has told the store of its end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.halted = False
        self.let_go = False
        self.tasks: list[asyncio.Task[Any]] = []
        self.held: list[_Turn] = []

    def start(self, work: Coroutine[Any, Any, Result]) -> "asyncio.Task[Result]":
        context = copy_context()
        context.run(_current.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    def halt(self) -> None:
        self.halted = True

    def go_on(self) -> None:
        """Runs again, and first what came while it was halted."""
        self.halted = False
        held, self.held = self.held, []
        for turn in held:
            turn.loop.call_outside(turn, turn.context)


@dataclass(slots=True, eq=False)
class _Turn:
    """A callback of a process, which waits where the process is halted when it is due."""

    loop: "VirtualLoop"
    process: Process
    callback: Callable[..., object]
    args: Any
    context: Context
    handle: asyncio.Handle | None = None

    def __call__(self) -> None:
        # Cancelled after it was due, and before the process went on.
        if self.handle is not None and self.handle.cancelled():
            return
        if self.process.halted:
            self.process.held.append(self)
        else:
            self.callback(*self.args)


class _Task(asyncio.Task[Any]):
    """Its hash is its number: sets of tasks, as in a TaskGroup, have the same order in each replay."""

    def __init__(self, number: int, *args: Any, **more: Any) -> None:
        self._number = number
        super().__init__(*args, **more)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while everybody sleeps, `longest_s` seconds at most."""

    def __init__(self, *, longest_s: float = math.inf) -> None:
        self._now_s = 0.0
        self._longest_s = longest_s
        self._busy = 0
        super().__init__(_Jumping(self._jump))
        self._numbers = itertools.count()
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        return self._now_s

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        process = _process_of(context)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        turn = _Turn(self, process, callback, args, context or copy_context())
        turn.handle = super().call_soon(turn, context=turn.context)
        return turn.handle

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        process = _process_of(context)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        turn = _Turn(self, process, callback, args, context or copy_context())
        turn.handle = handle = super().call_at(when, turn, context=turn.context)
        return handle

    def call_outside(self, callback: Callable[[], None], context: Context) -> None:
        """`call_soon` that is not held up once more."""
        super().call_soon(callback, context=context)

    def _make_task(self, loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> "asyncio.Task[Any]":
        task = _Task(next(self._numbers), work, loop=loop, **more)
        process = _process_of(more.get("context"))
        if process is not None:
            process.tasks.append(task)
        return task

    def _jump(self, seconds: float | None) -> None:
        if seconds is None:
            raise Stuck(f"after {self._now_s:.3f} s everybody waits and nobody sleeps")
        self._now_s += seconds
        if self._now_s > self._longest_s:
            raise Stuck(f"after {self._now_s:.3f} s somebody still waits for what never comes")
        self._busy = 0 if seconds else self._busy + 1
        if self._busy > MANY_TURNS:
            raise Stuck(f"after {self._now_s:.3f} s somebody is busy for ever")


class _Jumping(selectors.SelectSelector):
    def __init__(self, jump: Callable[[float | None], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._jump(timeout)
        return []


class Clock:
    """The clock of one process; `ahead_s` is by how much its time of day is wrong."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ahead_s = 0.0
        self._loop = loop

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self._loop.time() + self.ahead_s)

    def monotonic_s(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _process_of(context: Context | None) -> Process | None:
    return _current.get() if context is None else context.get(_current)
