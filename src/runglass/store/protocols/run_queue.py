"""Which process goes on with which run: leases, claims, and parts of budgets that are held meanwhile."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Protocol
from uuid import UUID

from runglass.store.process_records import (
    NO_LIMITS,
    UNTOLD,
    BudgetDecision,
    HeldLease,
    ProcessFacts,
    QueuedRuns,
)
from runglass.store.records import Checkpoint, RunRecord


class RunQueue(Protocol):
    """Runs that wait, and the processes that have the others."""

    async def hold_lease(
        self, owner: str, *, until: str, renew: bool, process: ProcessFacts = UNTOLD
    ) -> bool:
        """Makes the lease of `owner`, or lets it last until a later ISO time.

        False if there is none to renew: it ran out, and another process has taken the owner's runs over. A
        store of several machines measures leases by a clock of its own: to it, a time in a call about leases
        says how long that is from now.
        """

    async def leases(self) -> list[HeldLease]:
        """The leases of all processes, oldest first; also of one that is gone, until others take its runs."""

    async def end_lease(self, owner: str | None) -> None:
        """Ends the lease of `owner`, which lets go of its runs, or all of them: the runs are free."""

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

    async def queued_runs(self, project_id: int, *, most: int) -> QueuedRuns:
        """How many runs wait for a claim, counted up to `most`."""

    async def set_weights(self, weights: Mapping[int, float]) -> None:
        """Sets the shares of projects, by their ids, in the order of the runs that wait from now on."""

    async def claim_waiting(self, run: RunRecord) -> RunRecord | None:
        """Takes up a run that is paused, or pending without an owner; None if it is neither any more."""

    async def resume_run(self, run: RunRecord, segment: Checkpoint, *, owner: str | None) -> RunRecord | None:
        """Stores the next segment of a paused run for `owner`, or without one for whoever claims it.

        From then on the run goes on whatever becomes of the caller, and is paused until the first event of
        the segment. None if the run is not paused as `run` says any more, or is being resumed already.
        """

    async def release_run(self, run_id: str, owner: str) -> None:
        """Frees a run of `owner` for the next claim; the claim by `owner` does not count."""

    async def owned_runs(self, owner: str) -> dict[str, int]:
        """The head of each run that is the owner's, by run id."""

    async def request_cancel(self, run_id: str, *, reason: str) -> str | None:
        """Notes for whoever has the run, or claims it, that it is to be cancelled; an earlier note stays.

        Returns the owner, empty where nobody has the run; None if it has ended or is not there.
        """

    async def cancel_requests(self, owner: str) -> dict[str, str]:
        """The runs of `owner` that are to be cancelled, and the reasons, by run id."""

    async def hold_budget(self, hold: UUID, run: RunRecord, usd: Decimal) -> BudgetDecision:
        """Holds so much of the budget of the run's project, where there is room for it, beside other holds.

        Until `release_budget`, or until the run goes on with another fence or without an owner.
        """

    async def release_budget(self, hold: UUID) -> None:
        """Ends a hold, once the store has what it was held for, or nothing is to come of it."""
