"""What goes on beside the runs: whatever is due to go, goes, and for good."""

from collections.abc import Sequence
from typing import Protocol

from runglass.store.records import ContentPlace, RetentionOfFlow, RunRecord, SpanCursor
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

    async def purge_runs(self, runs: Sequence[int], *, by: Actor | None = None) -> int:
        """Deletes those of the runs that have ended, in one transaction; returns how many.

        The audit log has them where an actor asked for it, and not where retention did.

        From then on no method finds them, and their calls are forgotten. The space that they took is free
        when `purge_rows` is through with them. No other run gets their numbers.
        """

    async def purged_runs(self, *, after: int = 0, limit: int) -> list[int]:
        """The first numbers above that one of runs that are purged and whose rows are still there."""

    async def purge_rows(self, runs: Sequence[int], *, limit_rows: int, limit_bytes: int) -> int:
        """Deletes rows that these purged runs left behind; returns with how many of the first it is through.

        It takes as many of the first as fit into the limits together. Of one that does not fit it deletes
        some rows, and is not through with it before the last of them: 0.
        """

    async def strip_content(
        self, runs: Sequence[int], place: ContentPlace | None, *, limit_rows: int, limit_bytes: int
    ) -> tuple[int, ContentPlace | None]:
        """Takes the content out of the first of these ended runs; returns of how many, and where to go on.

        It takes as many of the first as fit into the limits together, in one transaction. Of one that does
        not fit it takes some rows, the first behind `place`: 0, and the place of the last of them. May begin
        anew at any time.
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

    async def span_cursors(self) -> list[SpanCursor]:
        """How far each project's runs have been sent on as spans, where there are changes after that.

        From the first call on: runs that have ended before it are taken for sent.
        """

    async def move_span_cursor(self, cursor: SpanCursor, change_no: int) -> bool:
        """All up to this change has been sent. False where the cursor is another one by now."""

    async def scrub(self) -> bool:
        """Takes deleted content out of every file of the store; False where it cannot yet: call it again.

        Costs nothing where no content was deleted since.
        """

    async def compact(self, *, limit_bytes: int) -> bool:
        """Gives about so much unused space back to the system; False if there is none worth it."""
