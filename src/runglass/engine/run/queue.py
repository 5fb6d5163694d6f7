"""The runs that wait for a slot among those that go on at once: one line for each project.

New runs wait in the store as `pending`; here are only their callers. A paused run that is resumed waits as
its caller does: until it has a slot it is still paused. In a line the runs come in turn; between the lines
the shares decide (`fair_share.py`), so a long one does not stand before a short one.
"""

import asyncio
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice

from runglass.engine.run.task import RunOutcome
from runglass.engine.scheduling.fair_share import Shares
from runglass.engine.steps.run_context import LiveOutputs
from runglass.errors import APIError, api_error
from runglass.store.process_records import QueuedRuns


class QueuedRun:
    """A new run in the line. `task` will be that of the run, or an error; `outputs` is its caller's."""

    def __init__(self, order: int, project_id: int, outputs: LiveOutputs | None) -> None:
        self.order = order
        self.project_id = project_id
        self.outputs = outputs
        self.stored_before: int | None = None
        self.task: asyncio.Future[asyncio.Task[RunOutcome]] = asyncio.get_running_loop().create_future()

    async def outcome(self) -> RunOutcome:
        """How the run ends, once it has begun."""
        return await asyncio.shield(await asyncio.shield(self.task))

    def fail(self, error: Exception) -> None:
        """Tells the caller that the run does not begin here."""
        if not self.task.done():
            self.task.set_exception(error)
            # No caller waits for a job: a failure that is not fetched is no fault.
            self.task.exception()


class _Line:
    """The waiting runs of one project.

    `backlog` is about how many of its runs wait in the store that this process has not put there, as after a
    crash; they come first.
    """

    def __init__(self) -> None:
        self.backlog = 0
        self.queued: dict[str, QueuedRun] = {}
        self.resuming: dict[int, asyncio.Future[None]] = {}

    def __len__(self) -> int:
        return self.backlog + len(self.queued) + len(self.resuming)


class RunQueue:
    """So many `slots`, and lines of at most `most_waiting` altogether.

    One project holds at most `most_each` slots and has at most `most_waiting_each` in its line. Where others
    hold all slots, or fill the lines, one that has less than its equal share gets in all the same. Without
    `begins_at_once` each run waits for a claim.
    """

    def __init__(
        self,
        *,
        slots: int,
        begins_at_once: bool = True,
        most_waiting: int,
        most_each: float = math.inf,
        most_waiting_each: float = math.inf,
        weights: Mapping[int, float] | None = None,
    ) -> None:
        self.takeovers = 0
        self._begins_at_once = begins_at_once
        self._most_waiting = most_waiting
        self._most_waiting_each = most_waiting_each
        self._shares = Shares(slots, most_each=most_each, weights=weights)
        self._order = 0
        self._claiming = 0
        self._lines: dict[int, _Line] = {}
        self._line_of: dict[str, _Line] = {}

    @property
    def held(self) -> int:
        """Places of runs that go on, and of those that are about to."""
        return self._shares.held

    @property
    def backlog(self) -> int:
        """How many runs wait in the store that this process has not put there."""
        return sum(line.backlog for line in self._lines.values())

    @property
    def waiting(self) -> int:
        """How many there are in the lines."""
        return sum(map(len, self._lines.values()))

    @property
    def free(self) -> int:
        """Places that nobody has."""
        return self._shares.free - self._claiming

    @property
    def most_counted(self) -> int:
        """So many that wait have to be counted to know whether there is room."""
        each = self._most_waiting_each
        return self._most_waiting if each == math.inf else max(self._most_waiting, int(each))

    @contextmanager
    def claiming(self, count: int) -> Iterator[None]:
        """Keeps so many free slots for a claim, of whatever projects its runs turn out to be."""
        self._claiming = count
        try:
            yield
        finally:
            self._claiming = 0

    def require_room(self, project_id: int, queued: QueuedRuns) -> None:
        """Raises UNAVAILABLE where so many wait, in all processes, that no further run of the project may."""
        if queued.own >= self._most_waiting_each:
            raise self._full(
                project_id, queued.own, "max_queued_runs_per_project", int(self._most_waiting_each)
            )
        projects = queued.projects + (not queued.own)
        if queued.waiting >= self._most_waiting and queued.own >= self._most_waiting / projects:
            raise self._full(project_id, queued.own, "max_queued_runs", self._most_waiting)

    def take(self, project_id: int) -> bool:
        """Takes a slot for a run that has just come; False where there is none, or others came before."""
        if not self._begins_at_once or self._claiming or project_id in self._lines:
            return False
        if not self._shares.may_take(project_id):
            return False
        self.reserve(project_id, 1)
        return True

    def reserve(self, project_id: int, count: int) -> None:
        """Takes slots for so many runs that have been said to be next."""
        for _ in range(count):
            # By the run and not by its time: most of that is spent in waiting for others.
            self._shares.take(project_id, used=1.0)

    def hold(self, project_id: int) -> None:
        """Takes the slot of a run that begins; the claim or call that reserved one gives that back."""
        self._shares.take(project_id)

    def give_back(self, project_id: int, *, unused: int = 0) -> None:
        """Gives a slot back, or as many as were reserved and not used."""
        for _ in range(unused):
            self._shares.charge(project_id, -1.0)
            self._shares.give_back(project_id)
        if not unused:
            self._shares.give_back(project_id)
        if not self._shares.held and not self._lines:
            self._shares.reset()

    def queue(self, run_id: str, project_id: int, outputs: LiveOutputs | None) -> QueuedRun:
        """Puts a new run in the line of its project. Raises UNAVAILABLE where that is full."""
        order = self._next(project_id)
        line = self._line_of[run_id] = self._lines.setdefault(project_id, _Line())
        queued = line.queued[run_id] = QueuedRun(order, project_id, outputs)
        return queued

    def stored(self, queued: QueuedRun) -> None:
        """From now on the run can be claimed."""
        queued.stored_before = self.takeovers

    def found(self, free: Mapping[int, int]) -> None:
        """Notes how many runs of each project there are in the store to be claimed."""
        for project_id in free.keys() | self._lines.keys():
            line = self._lines.setdefault(project_id, _Line())
            known = sum(each.stored_before is not None for each in line.queued.values())
            line.backlog = max(0, free.get(project_id, 0) - known)
            self._tidy(project_id)

    def leave(self, run_id: str, error: Exception | None = None) -> QueuedRun | None:
        """Takes a run out of its line, and tells its caller the `error`, if there is one."""
        line = self._line_of.pop(run_id, None)
        if line is None:
            return None
        queued = line.queued.pop(run_id)
        self._tidy(queued.project_id)
        if error is not None:
            queued.fail(error)
        return queued

    async def resume(self, project_id: int) -> None:
        """Returns when the caller has a slot, in its turn. Raises UNAVAILABLE for a full line."""
        if self.take(project_id):
            return
        order = self._next(project_id)
        line = self._lines.setdefault(project_id, _Line())
        granted = line.resuming[order] = asyncio.get_running_loop().create_future()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self.give_back(project_id)
            raise
        finally:
            line.resuming.pop(order, None)
            self._tidy(project_id)

    def claimable(self, most: int, *, but: Collection[int] = ()) -> tuple[int, int] | None:
        """Of which project how many runs of the store are next, `most` at most; None if none are.

        Passes over those in `but`. Hands out slots on the way to paused runs whose turn it is.
        """
        while (project_id := self._shares.next(each for each in self._lines if each not in but)) is not None:
            line = self._lines[project_id]
            order, granted = next(iter(line.resuming.items()), (None, None))
            if order is None or granted is None or line.backlog:
                return project_id, self._room(project_id, min(most, line.backlog + len(line.queued)))
            before = sum(each.order < order for each in islice(line.queued.values(), most))
            if before:
                return project_id, self._room(project_id, before)
            del line.resuming[order]
            self._tidy(project_id)
            if not granted.done():
                self.reserve(project_id, 1)
                granted.set_result(None)
        return None

    def claimed(self, project_id: int, asked: int, run_ids: list[str]) -> None:
        """Notes what a claim of `asked` runs of the project has got."""
        line = self._lines.get(project_id)
        if line is None:
            return
        unknown = sum(run_id not in line.queued for run_id in run_ids)
        line.backlog = 0 if len(run_ids) < asked else max(line.backlog - unknown, 0)
        self._tidy(project_id)

    def missing(self, project_id: int, claim: int) -> list[str]:
        """The runs that were to be found by the claim of this number, if no other process has taken them."""
        line = self._lines.get(project_id)
        return [
            run_id
            for run_id, queued in (line.queued.items() if line is not None else ())
            if queued.stored_before is not None and queued.stored_before < claim
        ]

    def close(self, error: Exception, refusal: APIError) -> None:
        """Tells all callers in the lines that nothing begins any more."""
        for run_id in list(self._line_of):
            self.leave(run_id, error)
        for line in list(self._lines.values()):
            for granted in line.resuming.values():
                if not granted.done():
                    granted.set_exception(refusal)

    def _room(self, project_id: int, wanted: int) -> int:
        """How many of the wanted slots are there for the project at once; one at least is known to be."""
        # Where others wait too, each gets its turn before one has all that is free.
        return max(1, min(wanted, self._shares.room(project_id) // len(self._lines)))

    def _tidy(self, project_id: int) -> None:
        line = self._lines.get(project_id)
        if line is not None and not len(line):
            del self._lines[project_id]

    def _next(self, project_id: int) -> int:
        line = self._lines.get(project_id)
        own = 0 if line is None else len(line)
        self.require_room(project_id, QueuedRuns(self.waiting, own, len(self._lines)))
        self._order += 1
        return self._order

    def _full(self, project_id: int, own: int, setting: str, value: int) -> APIError:
        return api_error(
            "UNAVAILABLE",
            f"{self._shares.held_by(project_id):,} runs of this project go on and {own:,} wait, as many as"
            f" may: the setting `{setting}` is {value:,}; nothing was started, try again later",
            details={"limit": setting, "value": value},
        )
