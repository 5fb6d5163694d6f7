"""Runs: created, appended to, read back, imported, and the calls that started them.

The one rule that all stores keep: an `Append` is one transaction. Events, run row, step attempts and
checkpoints are written together or not at all, and only if the log's head is where the writer believes it to
be. Everything a store returns is already on disk, as far as its durability setting goes.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from runglass.outlines.builder import AttemptRow
from runglass.store.imports import ImportedRun
from runglass.store.records import (
    Append,
    AttemptKey,
    Checkpoint,
    IdempotencyKey,
    IdempotencyRecord,
    NewRun,
    OpenedTrace,
    RawRow,
    RunRecord,
    Setback,
    StepRow,
)
from runglass.wire.admin_api import Actor


class RunLog(Protocol):
    """The log of each run, and all that is written with it."""

    async def create_run(self, run: NewRun) -> RunRecord:
        """A pending run without events.

        Raises DuplicateIdempotencyKey, and creates nothing, if there has been a call under the same key.
        """

    async def append(self, batch: Append) -> None:
        """Writes the batch. Raises WrongExpectedVersion if head or fence are not the run's."""

    async def run(self, run_id: str) -> RunRecord | None: ...

    async def outcome(self, run_no: int) -> tuple[bytes | None, bytes | None]:
        """Result and error of a run, as its caller is to have them; both None once they have expired."""

    async def request(self, run_no: int) -> bytes | None:
        """`NewRun.request`, as long as the run has not ended."""

    async def events(self, run_no: int, *, after: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        """Seq and JSON of the events after `after`: one at least if there is one, about `limit_bytes`."""

    async def trace(
        self,
        run_id: str,
        *,
        project_id: int,
        flow_id: str | None = None,
        limit_bytes: int,
        most_log_bytes: int = sys.maxsize,
    ) -> OpenedTrace | None:
        """The run and the first page of its trace, as of one moment.

        None if the project, or the flow where one is given, has no such run; then no step is read either. Nor
        is one of a run with a longer log than `most_log_bytes`.
        """

    async def trace_page(self, run_no: int, *, after: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        """Position and data of the latest attempt of each step, in order of first start, after `after`.

        One at least if there is one, about `limit_bytes`.
        """

    async def attempt_page(
        self, run_no: int, *, after: tuple[int, int], limit_bytes: int
    ) -> tuple[RunRecord, list[AttemptRow]]:
        """The run, and of the same moment the attempts of all steps after this position and number.

        One at least if there is one, about `limit_bytes`, in order of position and number.
        """

    async def last_position(self, run_no: int) -> int:
        """The position of the step and iteration that began last; 0 where none has."""

    async def steps(self, run_no: int) -> list[StepRow]:
        """The latest attempt of each step, in order of first start."""

    async def attempt_keys(
        self, run_no: int, step_id: str, *, position: int | None = None, loop_index: str | None = None
    ) -> list[AttemptKey]:
        """Every attempt of the step, by position, then number: as cheap for large ones as for small ones.

        Where they are given, those at `position` alone, and in iterations whose path ends in `loop_index`.
        """

    async def newest_position(
        self, run_no: int, step_id: str, *, loop_index: str | None = None
    ) -> int | None:
        """The position of the step in that of its iterations that began last, None if there is none.

        Of the iterations whose path ends in `loop_index` where it is given, for which all may be looked at.
        """

    async def attempt_data(self, run_no: int, keys: Sequence[AttemptKey], *, limit_bytes: int) -> list[bytes]:
        """The data of the first of these attempts, in their order: one at least, about `limit_bytes`."""

    async def open_steps(self, run_no: int) -> tuple[list[StepRow], int]:
        """The steps whose latest attempt is running or has failed, and the last position given out."""

    async def attempts_at(self, run_no: int, position: int) -> list[StepRow]:
        """Every attempt of the step at one position, that is in one iteration, by attempt number."""

    async def checkpoints(self, run_no: int) -> list[Checkpoint]: ...

    async def checkpoint(self, run_no: int, step_id: str, loop_path: str) -> bytes | None:
        """The data of one checkpoint; None if there is none, as after the end of the run."""

    async def call(self, project_id: int, key: str) -> IdempotencyRecord | None:
        """The call that was made under this Idempotency-Key, with its answer where that is kept."""

    async def begin_call(self, project_id: int, call: IdempotencyKey, run: RunRecord) -> None:
        """Notes a call that goes on with a run. Raises DuplicateIdempotencyKey for a used key."""

    async def answer_call(self, project_id: int, key: str, *, status: int, answer: bytes) -> None:
        """Keeps an answer that the run does not tell, for repeats of the call; the first one stays."""

    async def owed(self, run_no: int, seq: int) -> bytes | None:
        """The content that `Append.owed` kept for the event with this seq."""

    @property
    def generation(self) -> int:
        """Rises where the store may have lost its newest commits: it was restarted, or replaced by a standby.

        Whoever holds something that it has read compares it then. 0 for ever where that cannot be.
        """

    async def note_setback(self, run_id: str, project_id: int, *, had: int) -> None:
        """Notes that the store had the run's events up to `had`, and now has less or others.

        The audit log has it, too, and once the log of the process, unless the run was deleted by hand.
        """

    async def setbacks(self, run_id: str) -> list[Setback]:
        """What the run had at starts of the database, newest first: the last start, and those with a loss.

        Of the last 30 days. Also of a run that is gone; none of one that was created since.
        """

    async def keep_outline(self, run_no: int, part: int, data: bytes) -> None:
        """Keeps a part of the packed outline of a run that has ended: it counts among the run's bytes.

        Part 0 comes last, and the outline is due no more. Does nothing where the run is not there any more.
        """

    async def renew_outline(self, run_no: int) -> None:
        """The outline of this run, which has ended, is due once more. Does nothing where it is not there."""

    async def kept_outline(self, run_no: int) -> list[bytes]:
        """The parts of the run's outline in their order, from part 0 on; none where it is not whole."""

    async def begin_import(self, project_id: int, run_id: str) -> int:
        """The number of a run to import. Nobody finds it before `finish_import`.

        Raises ImportConflict where there is a run with this id.
        """

    async def import_rows(
        self, run_no: int, events: Sequence[tuple[int, bytes]], steps: Sequence[StepRow]
    ) -> None:
        """Writes events, each with its seq, and states of attempts of a run that is being imported."""

    async def finish_import(self, run: ImportedRun, *, by: Actor) -> None:
        """Makes the run that was imported one of the project's, and its flow where that is new.

        Raises ImportConflict, with nothing done, where the run is there by now, or the flow is another one.
        """

    async def abandon_imports(self, run_no: int | None = None) -> None:
        """Purges what was imported of a run, or of all that no living process imports any more.

        Of these none can be finished after that: `import_rows` and `finish_import` raise StoreError.
        """

    async def raw_rows(self, run_id: str, take: Callable[[str, RawRow], None]) -> bool:
        """Hands every row that belongs to a run to `take`, with its table, as it is; False if there is none.

        `take` is called in another thread, and the next row is read when it returns.
        """
