"""Which process goes on with which run: leases, the queue of runs that nobody has, and requests to owners.

A run that nobody has and that can go on stands in the narrow table `queue`. Its place, `pick`, is given as it
comes: behind the last one of its project, but not before the first that waits now (start-time fair queueing),
or before all others where it was begun and let go. How a claim takes them is up to each kind of store.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from runglass.log.money import add_usd
from runglass.store.calls import UNUSED_KEY, begin_call
from runglass.store.records import Checkpoint, IdempotencyKey, Project, RunRecord
from runglass.store.run_tables import RUN_COLUMNS, run_of
from runglass.store.statements import Ask, Steps, StorePart, count_open, done, every, fetch, one
from runglass.support.clock import iso


class ProcessFacts(NamedTuple):
    """A process that holds a lease, as people know it."""

    host: str = ""
    pid: int = 0
    version: str = ""
    executes_runs: bool = True


UNTOLD = ProcessFacts()


class HeldLease(NamedTuple):
    """A lease that has not been taken over: who holds it, since when, and until when; ISO times.

    `runs` is how many runs the process has.
    """

    owner: str
    process: ProcessFacts
    since: str
    expires_at: str
    runs: int


class BudgetDecision(NamedTuple):
    """What a budget had before a part of it was asked for: the project, if it is there, and what was held."""

    project: Project | None
    held_usd: Decimal

    def has_room_for(self, usd: Decimal) -> bool:
        """Whether the part that was asked for is held now."""
        project = self.project
        if project is None or project.budget_usd is None:
            return True
        taken = add_usd(add_usd(project.spent_usd, project.reserved_usd), self.held_usd)
        return add_usd(taken, usd) <= project.budget_usd


NO_LIMITS: Mapping[str, int] = {}
"""Of how many runs of a flow go on at once, by `org/project/slug`."""


class QueuedRuns(NamedTuple):
    """How many runs wait that no process has: all, the project's `own`, and in how many projects."""

    waiting: int
    own: int
    projects: int


# There are few owners and many runs: the index is stepped through from one owner to the next.
DEAD = (
    "RECURSIVE owners AS (SELECT min(owner) AS owner FROM run WHERE owner IS NOT NULL UNION ALL"
    " SELECT (SELECT min(owner) FROM run WHERE owner > owners.owner) FROM owners"
    " WHERE owners.owner IS NOT NULL),"
    # No process takes over from itself, though its lease may have run out while it waited for the store.
    " dead AS (SELECT owner FROM owners WHERE owner IS NOT NULL AND owner <> :owner AND NOT EXISTS"
    " (SELECT 1 FROM lease WHERE lease.owner = owners.owner AND expires_at > {}))"
)
"""The owners without a lease at the given time, behind WITH."""
WAITING_PROJECTS = (
    "projects AS (SELECT min(project_id) AS id FROM queue UNION ALL"
    " SELECT (SELECT min(project_id) FROM queue WHERE project_id > projects.id) FROM projects"
    " WHERE projects.id IS NOT NULL)"
)
"""The projects that wait and not all that waits, behind WITH RECURSIVE."""
CLAIM = (
    "UPDATE run SET owner = :owner, fence = {}, claimed_head = head,"
    # A run that no process has had only waited for its turn: that is no claim against it.
    " claims = CASE WHEN claimed_head = head THEN claims + 1"
    " WHEN status IN ('pending', 'paused') AND owner IS NULL AND claimed_head < 0 THEN 0 ELSE 1 END"
    " WHERE no = ANY ({})"
)
"""What a claim makes of the runs with these numbers, with the next fence."""


class Leases(StorePart):
    """The part of the store that ties runs to processes."""

    @abstractmethod
    async def hold_lease(
        self, owner: str, *, until: str, renew: bool, process: ProcessFacts = UNTOLD
    ) -> bool:
        """Makes the lease of `owner`, or lets it last until a later ISO time.

        False if there is none to renew: it ran out, and another process has taken the owner's runs over. A
        store of several machines measures leases by a clock of its own: to it, a time in a call about leases
        says how long that is from now.
        """

    async def claim_maintenance(self, task: str, *, for_s: float) -> bool:
        """Whether this process is to do the task for the next `for_s` seconds, and no other one is.

        Who has it may claim it again before that, and so keep it. A process that has the store to itself does
        all of them.
        """
        return True

    @abstractmethod
    async def claim_runs(
        self,
        owner: str,
        *,
        now: str,
        limit: int,
        project_id: int | None = None,
        most_each: int | None = None,
        most_of_flows: Mapping[str, int] = NO_LIMITS,
    ) -> list[RunRecord]:
        """Takes over runs that can go on and whose owner has no lease, or that have none.

        They are pending or running, or paused with a next segment that `resume_run` has stored. They come in
        turns between projects, by `set_weights`, and those first that were begun; with `project_id`, those of
        one project. Their owners before can append nothing more.

        With `most_each` no project then has more runs that have an owner, in all processes together; but runs
        of an owner without a lease are always taken over. `most_of_flows` does the same for flows, by
        `org/project/slug`.
        """

    @abstractmethod
    async def hold_budget(self, hold: UUID, run: RunRecord, usd: Decimal) -> BudgetDecision:
        """Holds so much of the budget of the run's project, where there is room for it, beside other holds.

        Until `release_budget`, or until the run goes on with another fence or without an owner.
        """

    @abstractmethod
    async def release_budget(self, hold: UUID) -> None:
        """Ends a hold, once the store has what it was held for, or nothing is to come of it."""

    async def leases(self) -> list[HeldLease]:
        """The leases of all processes, oldest first; also of one that is gone, until others take its runs."""
        sql = (
            "SELECT owner, since, expires_at, (SELECT count(*) FROM run WHERE run.owner = lease.owner), host,"
            " pid, version, executes_runs FROM lease ORDER BY since, owner"
        )
        return await self._read(every(_lease_of, sql))

    async def end_lease(self, owner: str | None) -> None:
        """Ends the lease of `owner`, which lets go of its runs, or all of them: the runs are free."""

        def work() -> Steps[None]:
            if owner is None:
                yield done("DELETE FROM lease")
            else:
                yield done("DELETE FROM lease WHERE owner = :owner", owner=owner)
                yield from _let_go("owner = :owner", owner=owner)

        await self._remove(work)

    async def queued_runs(self, project_id: int, *, most: int) -> QueuedRuns:
        """How many runs wait for a claim, counted up to `most`."""
        sql = (
            f"WITH RECURSIVE {WAITING_PROJECTS}"
            " SELECT (SELECT count(*) FROM (SELECT 1 FROM queue LIMIT :most) AS waiting),"
            " (SELECT count(*) FROM (SELECT 1 FROM queue WHERE project_id = :project_id LIMIT :most) AS own),"
            " (SELECT count(id) FROM projects)"
        )
        values = {"project_id": project_id, "most": most}
        return await self._read(Ask(sql, values, lambda rows: QueuedRuns(*map(int, rows[0]))))

    async def set_weights(self, weights: Mapping[int, float]) -> None:
        """Sets the shares of projects, by their ids, in the order of the runs that wait from now on."""

        def work() -> Steps[None]:
            for project_id, weight in weights.items():
                yield done(self._sql.set_weight, project_id=project_id, weight=weight)

        # Also on a full disk, like the lease: a server is to start there.
        await self._remove(work)

    async def claim_waiting(self, run: RunRecord) -> RunRecord | None:
        """Takes up a run that is paused, or pending without an owner; None if it is neither any more."""
        sql = (
            f"UPDATE run SET fence = {self._sql.next_fence}"
            " WHERE no = :no AND (status = 'paused' OR status = 'pending' AND owner IS NULL)"
            f" AND head = :head AND fence = :fence RETURNING {RUN_COLUMNS}"
        )
        # Also on a full disk: a run that is cancelled lets its request and its checkpoints go.
        return await self._remove(one(run_of, sql, no=run.no, head=run.head, fence=run.fence))

    async def resume_run(
        self, run: RunRecord, segment: Checkpoint, *, owner: str | None, call: IdempotencyKey | None = None
    ) -> RunRecord | None:
        """Stores the next segment of a paused run for `owner`, or without one for whoever claims it.

        From then on the run goes on whatever becomes of the caller, and is paused until the first event of
        the segment. None if the run is not paused as `run` says any more, or is being resumed already, or
        where the key of the `call` has been used; DuplicateIdempotencyKey where that happens at this moment.
        """
        resumed = one(
            run_of,
            f"UPDATE run SET fence = {self._sql.next_fence}, resume_head = head,"
            " owner = CAST(:owner AS text), claims = 0,"
            " claimed_head = CASE WHEN CAST(:owner AS text) IS NULL THEN -1 ELSE head END"
            " WHERE no = :no AND status = 'paused' AND resume_head <> head AND head = :head"
            f" AND fence = :fence AND {UNUSED_KEY} RETURNING {RUN_COLUMNS}",
            no=run.no,
            head=run.head,
            fence=run.fence,
            owner=owner,
            key=None if call is None else call.key,
        )

        def work() -> Steps[RunRecord | None]:
            found: RunRecord | None = yield resumed
            if found is None:
                return None
            if call is not None:
                yield from begin_call(run.project_id, call, run.id, head=run.head)
            yield done(
                "INSERT INTO checkpoint (run_no, step_id, loop_path, seq, data)"
                " VALUES (:run_no, :step_id, :loop_path, :seq, :data)"
                " ON CONFLICT (run_no, step_id, loop_path)"
                " DO UPDATE SET seq = excluded.seq, data = excluded.data",
                run_no=run.no,
                step_id=segment.step_id,
                loop_path=segment.loop_path,
                seq=run.head,
                data=segment.data,
            )
            yield count_open(run.no, len(segment.data))
            if owner is None:
                yield done(
                    "INSERT INTO queue (run_no, project_id) VALUES (:no, :project_id) ON CONFLICT DO NOTHING",
                    no=run.no,
                    project_id=run.project_id,
                )
            return found

        return await self._write(work)

    async def request_cancel(self, run_id: str, *, reason: str) -> str | None:
        """Notes for whoever has the run, or claims it, that it is to be cancelled; an earlier note stays.

        Returns the owner, empty where nobody has the run; None if it has ended or is not there.
        """
        sql = (
            "UPDATE run SET cancel_reason = coalesce(cancel_reason, :reason) WHERE id = :id"
            " AND status IN ('pending', 'running', 'paused') RETURNING coalesce(owner, '')"
        )
        return await self._write(one(lambda row: str(row[0]), sql, id=run_id, reason=reason))

    async def cancel_requests(self, owner: str) -> dict[str, str]:
        """The runs of `owner` that are to be cancelled, and the reasons, by run id."""
        sql = "SELECT id, cancel_reason FROM run WHERE owner = :owner AND cancel_reason IS NOT NULL"
        return await self._read(Ask(sql, {"owner": owner}, dict))

    async def owned_runs(self, owner: str) -> dict[str, int]:
        """The head of each run that is the owner's, by run id."""
        sql = "SELECT id, head FROM run WHERE owner = :owner"
        return await self._read(Ask(sql, {"owner": owner}, dict))

    async def release_run(self, run_id: str, owner: str) -> None:
        """Frees a run of `owner` for the next claim; the claim by `owner` does not count."""
        await self._write(lambda: _let_go("id = :id AND owner = :owner", id=run_id, owner=owner))


def _let_go(which: str, **named: Any) -> Steps[None]:
    """Gives runs back, to be claimed before those that have not begun."""
    # A process that lets a run go has survived it: that claim says nothing against the run.
    claims = "CASE WHEN claims > 0 THEN claims - 1 ELSE 0 END"
    freed = yield fetch(f"UPDATE run SET owner = NULL, claims = {claims} WHERE {which} RETURNING no", **named)
    yield done(
        "INSERT INTO queue (run_no, project_id, pick) SELECT no, project_id, 0 FROM run"
        " WHERE no = ANY (:freed) ON CONFLICT DO NOTHING",
        freed=[no for (no,) in freed],
    )


def _lease_of(row: Any) -> HeldLease:
    owner, since, expires_at, runs, host, pid, version, executes_runs = row
    since, expires_at = (at if isinstance(at, str) else iso(at) for at in (since, expires_at))
    return HeldLease(owner, ProcessFacts(host, pid, version, bool(executes_runs)), since, expires_at, runs)
