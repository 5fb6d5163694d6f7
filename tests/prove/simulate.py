"""`prove simulate`: the engine on a virtual clock, in a world where a seed decides on all that happens.

It decides on flows, durations and failures, on when callers start, resume, cancel and follow runs, and at
which process, when processes crash (at any moment and around any commit), stop, and sleep until another
machine has their runs, when the disk is full or gone, when clocks are set back, and which wake-ups are lost,
late or repeated. One to three engines work on one store, where some may only take calls. After each commit
the laws of the log are checked, and those of budgets and limits over all engines (`simulating/laws.py`):
nothing is spent or held beyond a budget, no more runs go on at once than may, and none waits for ever. In
some worlds outputs are large and memory is small: what was let go of is read back, and nothing is held at the
end. To replay a seed that lies: `python -m tests.prove simulate --first SEED --seeds 1`.
"""

import asyncio
import hashlib
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar, cast, get_args
from unittest.mock import patch

from tests.prove.report import lines
from tests.prove.simulating.disk import Fault
from tests.prove.simulating.virtual import VirtualLoop
from tests.prove.simulating.world import World

Result = TypeVar("Result")

_LOG = logging.getLogger("runglass")


class Lived(NamedTuple):
    """What happened, counted by name, and a digest of all events: the same seed has the same."""

    seen: Counter[str]
    digest: str


def live(seed: int, **how: Any) -> Lived:
    """Lives through the world of a seed, which is as `how` says. Raises AssertionError for a lie."""
    numbers = itertools.count(1)

    def next_id() -> str:
        return f"{next(numbers):08x}-0000-7000-8000-000000000000"

    with (
        patch("runglass.engine.run.idle_runs.RunIds.next", lambda _: next_id()),
        patch("runglass.store.catalog.uuid7", next_id),
        # Turns of large work belong to an event loop, which processes share here: one that is killed would
        # keep its turn for ever. And they go by the real time, and work in threads.
        patch("runglass.limits.pace.others_are_active", lambda _: False),
        patch("runglass.limits.offload.offload_in_turn", _at_once),
        patch("runglass.engine.capture.capture.offload_in_turn", _at_once),
        asyncio.Runner(loop_factory=VirtualLoop) as runner,
    ):
        loop = cast(VirtualLoop, runner.get_loop())
        world = World(seed, loop, **how)
        runner.get_loop().set_exception_handler(_Troubles(world).take)
        try:
            with _heard(world):
                seen = runner.run(world.run())
                events = world.disk.connection.execute("SELECT data FROM event ORDER BY run_no, seq")
                return Lived(seen, hashlib.sha256(b"\n".join(data for (data,) in events)).hexdigest()[:12])
        finally:
            world.closing = True
            runner.run(_bury(world))
            world.disk.connection.close()


async def _at_once(work: Callable[[], Result]) -> Result:
    return work()


async def _bury(world: World) -> None:
    """Ends what dead processes left off: their tasks may not go on when they are collected some day."""
    lives = [life for machine in world.machines for life in machine.past]
    inside = {task for life in lives for task in life.process.tasks}
    outside = asyncio.all_tasks() - inside - {asyncio.current_task()}
    for task in outside:
        task.cancel()
    await asyncio.wait({*outside, asyncio.create_task(asyncio.sleep(0))})
    with _heard(world):
        for life in lives:
            life.bury()
        # After a lie an engine may be in any state, and end only what it is made to end.
        for _ in range(100):
            tasks = [task for life in lives for task in life.process.tasks if not task.done()]
            if not tasks:
                return
            for task in tasks:
                task.cancel()
            await asyncio.sleep(1.0)


class _Troubles(logging.Handler):
    """Takes the errors that nobody else takes, as lies of a world that is not over yet.

    Such are those in a callback, or in a task that nobody awaits, and what the engine caught and logged.
    """

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def take(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._fail(str(context.get("message")), context.get("exception"))

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self._fail(record.getMessage(), record.exc_info[1])

    def _fail(self, message: str, error: BaseException | None) -> None:
        if self._world.closing:
            return
        if not isinstance(error, AssertionError):
            cause, error = error, AssertionError(f"{message}: {error!r}")
            error.__cause__ = cause
        self._world.fail(error)


@contextmanager
def _heard(world: World) -> Iterator[None]:
    """The log of the engine is heard by this world alone: it tells of hundreds of crashes."""
    handler, propagates = _Troubles(world), _LOG.propagate
    _LOG.addHandler(handler)
    _LOG.propagate = False
    try:
        yield
    finally:
        _LOG.removeHandler(handler)
        _LOG.propagate = propagates


CONTROL_FROM = 1000
"""With so many seeds, those of a store with a fault must show it; the rarest shows in one of 150."""


def simulate(
    seeds: int = 2000, first: int = 0, engines: int | None = None, *, fault: Fault | None = None
) -> list[str]:
    """What was tried with the seeds from `first` on. Raises AssertionError for the first seed with a lie.

    Each seed has its own number of engines, unless `engines` says how many they are. With a `fault` of the
    store there should be a lie.
    """
    began_s = time.monotonic()
    seen: Counter[str] = Counter()
    digest = hashlib.sha256()
    for seed in range(first, first + seeds):
        try:
            lived = live(seed, engines=engines, fault=fault)
        except AssertionError as lie:
            replay = f"python -m tests.prove simulate --first {seed} --seeds 1"
            replay += "" if engines is None else f" --engines {engines}"
            raise AssertionError(f"seed {seed}: {lie}; replay it with `{replay}`") from lie
        seen += lived.seen
        digest.update(lived.digest.encode())
    per_s = seeds / (time.monotonic() - began_s)
    report = [
        f"simulate, seeds {first} to {first + seeds - 1}: {per_s:.0f} seeds/s, {seen['virtual seconds']:,}"
        f" virtual seconds, {seen['commits']:,} commits, {seen['events']:,} events; no lie",
        *lines(seen),
        f"all logs together: {digest.hexdigest()[:12]}",
    ]
    if seeds >= CONTROL_FROM:
        report += [_control(fault, range(first, first + seeds)) for fault in get_args(Fault)]
    return report


def _control(fault: Fault, seeds: Iterable[int]) -> str:
    for seed in seeds:
        try:
            live(seed, fault=fault)
        except AssertionError as lie:
            return f"control, {fault}: seed {seed}: {lie}"
    raise AssertionError(f"no seed shows {fault}")
