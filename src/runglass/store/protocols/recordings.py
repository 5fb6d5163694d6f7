"""Runs of other programs, found by the ids of their traces."""

from collections.abc import Sequence
from typing import Protocol

from runglass.store.records import FlowRecord, NewRecording, RecordedTrace, RunRecord


class Recordings(Protocol):
    """The runs that are recorded: no process has them, and none waits in the queue.

    A trace has a run, and another one for what comes after that has ended, and so on: its parts.
    """

    async def recorded_flow(self, project_id: int, slug: str, *, most: int) -> FlowRecord:
        """The flow for recorded runs under this slug, made where it is new.

        Where that one is executable: the flow `otel-SLUG`. Where one is missing and the project has `most`
        recorded flows: the flow `otel`.
        """

    async def recorded_traces(self, project_id: int, trace_ids: Sequence[str]) -> dict[str, RecordedTrace]:
        """Those of the traces that the project has or had, each with its newest run."""

    async def earlier_parts(self, run_no: int) -> list[RunRecord]:
        """The runs of a run's trace that it comes after, the first one first."""

    async def create_recording(self, run: NewRecording) -> RunRecord | None:
        """A pending run without events, of a new trace or behind the run that it `continues`.

        None, with nothing done, where the trace has a run already, or another one than that as its newest.
        """

    async def due_recordings(self, *, now: str, limit: int) -> list[RunRecord]:
        """Runs that have not ended and are due at this ISO time, those first that were due first."""

    async def defer_recording(self, run_no: int, *, due_at: str) -> None:
        """The run is due at this ISO time, unless it has ended."""

    async def show_recording(
        self, run_no: int, *, is_plain: bool = False, session_id: str | None = None
    ) -> None:
        """Lists and sessions show the run as it is known now: not as `plain` any more, and in its session.

        One that was shown without `is_plain` stays so.
        """

    async def ended_plain_runs(self, project_id: int, *, before: str, limit: int) -> list[int]:
        """Numbers of the project's plain runs that ended before this ISO time or at it, oldest first.

        Costs no more than what it finds, and what of that age goes on.
        """
