"""What goes on beside the runs: whatever is due to go, goes, and for good."""

from typing import Protocol

from runglass.store.records import ContentPlace, RetentionOfFlow, RunRecord
from runglass.wire.admin_api import Actor


class Upkeep(Protocol):
    """Retention, removal, pauses and outlines that are due, and space given back."""

    async def check_write(self) -> None:
        """Writes something that needs room, commits it and leaves nothing behind. Raises StoreError."""

    async def claim_maintenance(self, task: str, *, for_s: float) -> bool:
        """Whether this process is to do the task for the next `for_s` seconds, and no other one is.

        Who has it may claim it again before that, and so keep it.
        """

    async def retentions(self) -> list[RetentionOfFlow]:
        """The retention of each flow's runs, set by the flow or else by its project."""

    async def ended_runs(self, flow_id: str, *, before: str, with_content: bool, limit: int) -> list[int]:
        """Numbers of the flow's runs that ended before this ISO time or at it, oldest end first.

        Of those `with_content` it finds the ones that `strip_content` has not been through. Costs no more
        than what it finds.
        """

    async def purge_run(self, run_no: int, *, by: Actor | None = None) -> bool:
        """Deletes a run that has ended; False, and nothing done, if there is none.

        The audit log has it where an actor asked for it, and not where retention did.

        From then on no method finds it, and its calls are forgotten. The space that it took is free when
        `purge_rows` has been called as often as it takes. No other run gets its number.
        """

    async def purged_runs(self) -> list[int]:
        """The numbers of runs that are purged and whose rows are still there."""

    async def purge_rows(self, run_no: int, *, limit_rows: int, limit_bytes: int) -> bool:
        """Deletes some rows that the purged run left behind; whether there may be more."""

    async def strip_content(
        self, run_no: int, place: ContentPlace | None, *, limit_rows: int, limit_bytes: int
    ) -> ContentPlace | None:
        """Takes the content out of some rows of an ended run, the first after `place`; None at the end.

        A run that fits into the limits changes in one transaction. May begin anew at any time. Raises
        msgspec.DecodeError for a row that is no event or step.
        """

    async def forget_calls(self, *, before: str) -> int:
        """Drops the calls older than this ISO time, with the content kept for them; returns how many."""

    async def expire_answers(self, *, before: str, limit: int) -> int:
        """Drops content kept for callers of runs that ended before this ISO time, and older answers to calls.

        Of each the oldest, as many as `limit` at most and fewer where they are large; returns how many. That
        a call was made stays known. Costs next to nothing where nothing is due.
        """

    async def drop_checkpoints(self, *, limit_rows: int, limit_bytes: int) -> bool:
        """Deletes some checkpoints that long and large runs left behind; False if there are none."""

    async def paused_runs(self) -> list[RunRecord]:
        """All runs whose status is paused, oldest first."""

    async def due_outline(self) -> RunRecord | None:
        """The newest run that has ended with `LARGE_RUN_EVENTS` or more and whose outline is not kept yet.

        None if there is none. Costs no more than what it finds.
        """

    async def pass_over_outline(self, run_no: int) -> None:
        """The outline of this run is due no more."""

    async def scrub(self) -> bool:
        """Takes deleted content out of every file of the store; False where it cannot yet: call it again.

        Costs nothing where no content was deleted since.
        """

    async def compact(self, *, limit_bytes: int) -> bool:
        """Gives about so much unused space back to the system; False if there is none worth it."""
