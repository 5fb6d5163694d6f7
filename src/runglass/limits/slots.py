"""The slots for runs of this process, and which projects may have runs that wait in the store for one.

A run that finds a slot where it comes in takes it at once, and the store hears nothing of that. All others
wait in the store, which says what is next. What is known of them here only spares claims, and keeps a
project's own order: while one of its runs waits, its next ones wait behind it.
"""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from runglass.config.settings import Settings
from runglass.errors import APIError, api_error
from runglass.limits.shares import Shares

if TYPE_CHECKING:
    from runglass.store.leases import Leases, QueuedRuns

Found = TypeVar("Found")


class RunSlots:
    """So many as the settings say; so many runs wait as they say, in all and of one project.

    Where others hold all slots, or fill the line, a project that has less than its equal share gets in all
    the same. `may_wait`: whether a claim may find runs.
    """

    def __init__(self, settings: Settings, *, weights: Mapping[int, float] | None = None) -> None:
        self.may_wait = True
        most_each, executes = settings.max_concurrent_runs_per_project, settings.executes_runs
        # With a limit over all processes the store alone tells whether a project has room, and each run waits
        # for a claim. Those that will have slots count as none that wait.
        self._begins_at_once = executes and most_each is None and not settings.max_concurrent_runs_per_flow
        is_shared = executes and not settings.max_concurrent_runs_per_flow
        self._claimed_each = most_each if is_shared and most_each is not None else 0
        self._most_waiting = settings.max_queued_runs
        self._most_waiting_each = settings.max_queued_runs_per_project
        self._shares = Shares(settings.max_concurrent_runs, weights=weights)
        self._claiming = 0
        self._arrivals = 0
        self._waiting: dict[int, int] = {}
        """The projects with runs that wait, each with the number of the latest of them."""
        self._was_empty = False

    @property
    def held(self) -> int:
        """Places of runs that go on, and of those that are about to."""
        return self._shares.held

    @property
    def free(self) -> int:
        """Places that nobody has."""
        return self._shares.free - self._claiming

    @property
    def most_counted(self) -> int:
        """So many that wait have to be counted to know whether there is room."""
        return max(self._most_waiting, self._most_waiting_each or 0)

    def require_room(self, project_id: int, queued: "QueuedRuns") -> None:
        """Raises UNAVAILABLE where so many wait, in all processes, that no further run of the project may."""
        begin = max(0, min(self.free, self._claimed_each - self._shares.held_by(project_id)))
        each = self._most_waiting_each
        if each is not None and queued.own - begin >= each:
            raise self._full(project_id, queued.own, "max_queued_runs_per_project", each)
        projects = queued.projects + (not queued.own)
        if queued.waiting - begin >= self._most_waiting and queued.own >= self._most_waiting / projects:
            raise self._full(project_id, queued.own, "max_queued_runs", self._most_waiting)

    def take(self, project_id: int) -> bool:
        """Takes a slot for a run that has just come; False where there is none, or others came before."""
        # What a process before this one has left in the store has come before, whosever it is.
        if not (self._begins_at_once and self._was_empty) or project_id in self._waiting:
            return False
        if (self._claiming and self.free <= 0) or not self._shares.may_take(project_id):
            return False
        self.hold(project_id)
        return True

    def hold(self, project_id: int) -> None:
        """Takes the slot of a run that begins, or has been claimed; the latter is given back as it begins."""
        self._shares.take(project_id)

    def give_back(self, project_id: int) -> None:
        """Gives a slot back."""
        self._shares.give_back(project_id)
        if not self._shares.held:
            self._shares.reset()
        # A limit over all processes has room again.
        self.may_wait |= not self._begins_at_once

    def note_waiting(self, project_id: int) -> None:
        """Notes that a run of the project waits in the store from now on."""
        self._arrivals += 1
        self._waiting[project_id] = self._arrivals
        self.may_wait = True

    def claimable(self, most: int) -> tuple[int | None, int] | None:
        """How many runs may be claimed now, `most` at most, and of which project; None of any."""
        if self.free > 0:
            return (None, min(most, self.free)) if self.may_wait else None
        project_id = self._shares.next(self._waiting)
        return None if project_id is None else (project_id, 1)

    @contextmanager
    def claiming(self, project_id: int | None, count: int) -> Iterator[list[int]]:
        """Claims so many runs: for each that the block gets, whose project it adds, there is a slot then."""
        before, claimed, found_all = self._arrivals, list[int](), False
        if project_id is None:
            # Whoever has something new says so, also during the claim.
            self._claiming, self.may_wait = count, False
        try:
            yield claimed
            found_all = len(claimed) < count
        finally:
            self._claiming = 0
            self.may_wait |= not found_all
        for each in claimed:
            self.hold(each)
        if found_all:
            # Nothing waits any more, but for what has come since.
            for each in [project_id] if project_id is not None else list(self._waiting):
                if self._waiting.get(each, math.inf) <= before:
                    del self._waiting[each]
            self._was_empty |= project_id is None

    def _full(self, project_id: int, own: int, setting: str, value: int) -> APIError:
        return api_error(
            "UNAVAILABLE",
            f"{self._shares.held_by(project_id):,} runs of this project go on and {own:,} wait, as many as"
            f" may: the setting `{setting}` is {value:,}; nothing was started, retry later",
            details={"limit": setting, "value": value},
        )


class _Reading(Generic[Found]):
    """The readings for one project, one after the other; `found` is what the latest one has found."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.begun = 0
        self.latest = 0
        self.found: Found | None = None


class Readings(Generic[Found]):
    """Readings of what there is of a project. Who asks while it is read shares the next reading."""

    def __init__(self, read: Callable[[int], Awaitable[Found]]) -> None:
        self._read = read
        self._readings: dict[int, _Reading[Found]] = {}

    async def read(self, project_id: int) -> Found:
        """What there is from now on. Raises as the reading does."""
        reading = self._readings.setdefault(project_id, _Reading())
        asked_after = reading.begun
        async with reading.lock:
            if reading.latest <= asked_after:
                reading.begun += 1
                number = reading.begun
                reading.found = await self._read(project_id)
                reading.latest = number
            return cast(Found, reading.found)


class QueueAdmission:
    """Lets runs into the queue, which lies in the store, as far as there is room; in this process one by one.

    What waits is counted in the store, and a run is created after that: without more, all calls that come at
    once would be let in by one count. So those that this process has let in and not stored yet count, too.
    What other processes let in at the same instant is not known here.
    """

    def __init__(self, slots: RunSlots, store: "Leases") -> None:
        self._slots = slots
        self._counts = Readings(lambda project_id: store.queued_runs(project_id, most=slots.most_counted))
        self._coming: Counter[int] = Counter()
        """Runs of each project that have been let in and may not be stored yet."""
        self._settled: Counter[int] = Counter()
        """Those of each project that were, since the beginning."""
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def of(self, project_id: int) -> AsyncIterator[None]:
        """Lets a run in, which the block stores. Raises UNAVAILABLE where too many wait, StoreError."""
        await self._enter(project_id)
        try:
            yield
        finally:
            self._coming[project_id] -= 1
            self._settled[project_id] += 1
            self._changed.set()
            self._changed = asyncio.Event()
            # Also where storing it has failed: it may be in the store all the same.
            self._slots.note_waiting(project_id)

    async def _enter(self, project_id: int) -> None:
        while True:
            # What is stored from here on is in the count or not: it counts twice at most.
            settled, own_settled = self._settled.total(), self._settled[project_id]
            queued = await self._counts.read(project_id)
            beside = self._coming.total() + self._settled.total() - settled
            own = self._coming[project_id] + self._settled[project_id] - own_settled
            counted = queued._replace(
                waiting=queued.waiting + beside,
                own=queued.own + own,
                projects=queued.projects + (own > 0 and not queued.own),
            )
            try:
                self._slots.require_room(project_id, counted)
            except APIError:
                if not beside:
                    raise
                if self._coming.total():
                    await self._changed.wait()
            else:
                self._coming[project_id] += 1
                return
