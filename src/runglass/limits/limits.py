"""Everything that bounds callers in one process, by its settings: engine and server share one `Limits`."""

import asyncio
import math
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from runglass.config.settings import Settings
from runglass.errors import rate_limited
from runglass.limits.memory import MemoryBudget
from runglass.limits.shares import FairTurns, Shares
from runglass.limits.slots import RunSlots

MINUTE_S = 60.0
STEPS_AT_A_TIME = 32
"""About 4 ms of steps that do nothing."""
LARGE_REQUESTS = 8
"""The most projects of which a large request is taken in at the same time."""
IMPORTS = 8
"""The most projects that import a run at the same time: some 40 MB are in memory for each."""
DIFFS = 4
"""The most projects that compare runs at the same time: two traces are in memory for each."""


def most(setting: int | None) -> float:
    """The number that a setting allows; None is no limit."""
    return math.inf if setting is None else setting


class Limits:
    """Requests by rate, calls and runs by their number, memory by its bytes, large work by turns of projects.

    `weights` are those of projects, by id.
    """

    def __init__(self, settings: Settings, *, weights: Mapping[int, float] | None = None) -> None:
        self.settings = settings
        self.rates = Rates(settings)
        self.memory = MemoryBudget(settings)
        self.runs = RunSlots(settings, weights=weights)
        self.store_turns: defaultdict[int, StoreTurns] = defaultdict(StoreTurns)
        """By project: those of its steps."""
        self.model_calls = FairTurns(
            Shares(math.inf, most_each=most(settings.max_concurrent_model_calls_per_project))
        )
        self.large_requests = FairTurns(Shares(1, most=LARGE_REQUESTS, most_each=1))
        self.diffs = FairTurns(Shares(1, most=DIFFS, most_each=1))
        self._open_calls = Shares(math.inf, most_each=settings.max_streams_per_project)
        self._imports = Shares(IMPORTS, most=IMPORTS, most_each=1)

    def open_call(self, project_id: int) -> AbstractContextManager[Callable[[], None]]:
        """The block is a stream, or a call that waits for its run; it ends by what it is given, too.

        Raises RATE_LIMITED.
        """
        if not self._open_calls.may_take(project_id):
            value = self.settings.max_streams_per_project
            raise rate_limited(
                f"{value:,} streams and blocking calls of this project are open, as many as the setting"
                " `max_streams_per_project` allows; nothing was started, close some or try again later",
                details={"limit": "max_streams_per_project", "value": value},
            )
        return self._open_calls.taken(project_id)

    def one_import(self, project_id: int) -> AbstractContextManager[object]:
        """The block imports a run. Raises RATE_LIMITED where the project does already, or many others do."""
        if not self._imports.may_take(project_id):
            raise rate_limited(
                "another run is being imported, and one of a project is taken at a time; try again later"
            )
        return self._imports.taken(project_id)


class Rates:
    """The rates of each key, and of all keys of a project together, so that more keys do not raise it.

    A bucket holds a minute's worth of requests and fills up evenly. It is kept as one number, the moment at
    which it will be full again, by its setting and the id of its key or project. A full bucket is not kept,
    so the memory is limited by those that asked in the last minute. `clock` gives seconds that never go back.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_project = settings.project_rate_limit_per_minute
        self._per_key = settings.rate_limit_per_minute
        self._clock = clock
        self.buckets: OrderedDict[tuple[str, int], float] = OrderedDict()

    def take(self, *, key_id: int, project_id: int) -> None:
        """Counts a request. Raises RATE_LIMITED with the time to wait, and then counts nothing.

        So a key over its own limit takes nothing from the other keys of its project.
        """
        now_s, taken = self._clock(), {}
        all_keys = "this project, with all of its keys,"
        for per_minute, setting, one, subject in (
            (self._per_project, "project_rate_limit_per_minute", project_id, all_keys),
            (self._per_key, "rate_limit_per_minute", key_id, "this key"),
        ):
            if per_minute is None:
                continue
            full_at_s = max(self.buckets.get((setting, one), now_s), now_s) + MINUTE_S / per_minute
            # The sum of many intervals has rounding errors, which must not cost a request.
            wait_s = full_at_s - now_s - MINUTE_S
            if wait_s > 1e-6:
                raise rate_limited(
                    f"{subject} may ask {per_minute:,} times a minute; wait as `Retry-After` says, or raise"
                    f" the server's setting `{setting}`",
                    retry_after_s=wait_s,
                )
            taken[setting, one] = full_at_s
        for bucket, full_at_s in taken.items():
            self.buckets[bucket] = full_at_s
            self.buckets.move_to_end(bucket)
        # The oldest come first.
        while self.buckets and next(iter(self.buckets.values())) <= now_s:
            self.buckets.popitem(last=False)


class StoreTurns:
    """The steps of one project: `inside` wait for the store, at most `most` of them, the others in a line.

    A loop of a thousand cheap steps at a time is ready as a whole whenever its appends are stored. Done in
    one turn of the event loop, they would hold it for a tenth of a second; and as the loop never rests then,
    the writer's thread hardly gets the interpreter, with the appends of all other runs behind its own.
    """

    __slots__ = ("_is_due", "_line", "_most", "inside")

    def __init__(self, most: int = STEPS_AT_A_TIME) -> None:
        self.inside = 0
        self._most = most
        self._line: deque[asyncio.Future[None]] = deque()
        self._is_due = False

    @property
    def is_full(self) -> bool:
        """Whether a step that the store has answered must wait for its turn, before it comes to it again."""
        return self.inside >= self._most or bool(self._line)

    def leave(self) -> bool:
        """A step that was inside waits for the store no more; whether it must wait for its turn now."""
        self.inside -= 1
        if self._line:
            self._let_on_soon()
            return True
        return self.inside >= self._most

    async def turn(self) -> None:
        """Returns when the step may go on."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(future)
        self._let_on_soon()
        await future

    def _let_on_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._let_on)

    def _let_on(self) -> None:
        self._is_due = False
        room = self._most - self.inside
        while self._line and room > 0:
            future = self._line.popleft()
            if not future.done():
                room -= 1
                future.set_result(None)
        # Those that go on need not come to the store again: whether they do is known in the next turn.
        if self._line and self.inside < self._most:
            self._let_on_soon()
