"""The protocol of every store.

The one rule that all stores keep: an `Append` is one transaction. Events, run row, step attempts and
checkpoints are written together or not at all, and only if the log's head is where the writer believes it to
be. Everything a store returns is already on disk, as far as its durability setting goes.

More than 300 lines: the protocol is one list.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Protocol, Self
from uuid import UUID

import msgspec

from runglass.errors import RunUnreadable
from runglass.outlines.builder import AttemptRow
from runglass.store.imports import ImportedRun
from runglass.store.list_records import ChangedRun, FoundRuns, ListPosition, RunCounts
from runglass.store.overview import PoolUse, StoreOverview
from runglass.store.process_records import (
    NO_LIMITS,
    UNTOLD,
    BudgetDecision,
    HeldLease,
    ProcessFacts,
    QueuedRuns,
)
from runglass.store.records import (
    NO_RETENTION,
    ApiKey,
    Append,
    AttemptKey,
    Checkpoint,
    ContentPlace,
    FlowRecord,
    FlowVersion,
    IdempotencyKey,
    IdempotencyRecord,
    NewRun,
    OpenedTrace,
    Project,
    RawRow,
    Retention,
    RetentionOfFlow,
    Role,
    RunRecord,
    Setback,
    StepRow,
    ViewerSession,
)
from runglass.support.clock import Clock
from runglass.wire.admin_api import SERVER, Actor, AuditEntry
from runglass.wire.query import RunQuery
from runglass.wire.run_api import CaptureFailed, CaptureMode


@contextmanager
def decoding(run_id: str) -> Iterator[None]:
    """Inside the block, stored data of a run is decoded: RunUnreadable where it cannot be."""
    try:
        yield
    except (
        msgspec.MsgspecError,
        ValueError,
        LookupError,
        TypeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise RunUnreadable(run_id, str(error) or type(error).__name__) from error


class Store(Protocol):
    """Runs, flows, keys and projects. Every method raises StoreError if the store cannot be reached.

    A method that takes `by` changes a project: the audit log names the actor, in the same transaction, unless
    nothing has changed.
    """

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...

    @property
    def pool(self) -> PoolUse | None:
        """The connections of this process; None where a store has none that could run out."""

    async def overview(self) -> StoreOverview:
        """How much has not ended, over all processes; costs a look-up for each project and status."""

    async def check_write(self) -> None:
        """Writes something that needs room, commits it and leaves nothing behind. Raises StoreError."""

    async def ensure_project(self, org: str, name: str, *, by: Actor = SERVER) -> Project:
        """The project, created if it is new."""

    async def project(self, project_id: int) -> Project | None: ...
    async def find_project(self, org: str, name: str) -> Project | None: ...
    async def projects(self) -> list[Project]: ...
    async def set_capture(
        self,
        project_id: int,
        mode: CaptureMode | None,
        failed: CaptureFailed | None = None,
        sample: float | None = None,
        *,
        by: Actor = SERVER,
    ) -> None:
        """Sets `capture`, `capture_failed` and `capture_sample` of the project; None is the server's."""

    async def set_budget(self, project_id: int, budget_usd: Decimal | None, *, by: Actor = SERVER) -> None:
        """Sets the budget of the project; None lifts the limit."""

    async def set_allowed_models(
        self, project_id: int, patterns: Sequence[str] | None, *, by: Actor = SERVER
    ) -> None:
        """Sets which models the project's flows and callers may name; None leaves it to the server."""

    async def set_retention(self, project_id: int, retention: Retention, *, by: Actor = SERVER) -> None:
        """Sets how long the project's ended runs are kept; None leaves it to the server's default."""

    async def add_key(
        self,
        project_id: int,
        role: Role,
        digest: bytes,
        hint: str,
        *,
        most: int | None = None,
        by: Actor = SERVER,
    ) -> ApiKey:
        """Keeps a new key. Raises KeyLimitReached where the project has `most` keys that are not revoked."""

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """The key with this hash, revoked or not."""

    async def keys(self, project_id: int, *, after: int = 0, limit: int | None = None) -> list[ApiKey]:
        """The project's keys behind id `after`, oldest first; without `limit` all of them."""

    async def key(self, project_id: int, key_id: int) -> ApiKey | None: ...
    async def live_keys(self, key_ids: Iterable[int]) -> set[int]:
        """Those of these keys that are there and not revoked."""

    async def revoke_key(self, project_id: int, key_id: int, *, by: Actor = SERVER) -> bool:
        """Whether there was such a key and it was not revoked before."""

    async def add_viewer_session(
        self, session: ViewerSession, *, most_of_key: int, most_of_project: int
    ) -> None:
        """Keeps a new session. The one used longest ago goes where its key or project has so many."""

    async def viewer_session(self, digest: bytes) -> ViewerSession | None:
        """The session with this hash and its key, revoked or not: one look-up for both."""

    async def use_viewer_session(self, digest: bytes, used_at: str) -> None:
        """Notes when the session was used last."""

    async def end_viewer_session(self, digest: bytes) -> None:
        """Forgets the session, if there is one."""

    async def put_draft(
        self,
        project_id: int,
        slug: str,
        *,
        name: str | None,
        capture: CaptureMode | None,
        source: bytes,
        retention: Retention = NO_RETENTION,
        by: Actor = SERVER,
    ) -> FlowRecord:
        """Stores `source` as version 0 of the flow, which is created if it is new."""

    async def publish(self, flow_id: str, *, by: Actor = SERVER) -> int:
        """Copies the draft to the next version, makes that the production version and returns its number.

        That is the first one behind the newest that was published, and no number of an imported version. A
        draft equal to the production version is not copied again.
        """

    async def set_production(self, flow_id: str, version: int, *, by: Actor = SERVER) -> bool:
        """Makes a published version the production version; False if there is no such version.

        One that came with an imported run is none.
        """

    async def versions(self, flow_id: str, *, after: int = -1, limit: int | None = None) -> list[FlowVersion]:
        """The flow's versions behind number `after`, the draft first; without `limit` all of them."""

    async def find_flow(self, project_id: int, slug: str) -> FlowRecord | None: ...
    async def flow(self, flow_id: str) -> FlowRecord | None: ...
    async def flows(self, project_id: int, *, after: str = "", limit: int | None = None) -> list[FlowRecord]:
        """The project's flows behind slug `after`, by slug; without `limit` all of them."""

    async def flow_source(self, flow_id: str, version: int) -> bytes | None: ...
    async def runnable_source(self, flow_id: str, version: int) -> bytes | None:
        """The source of a version that runs; None where there is none, or it came with an imported run."""

    async def create_run(self, run: NewRun) -> RunRecord:
        """A pending run without events.

        Raises DuplicateIdempotencyKey, and creates nothing, if there has been a call under the same key.
        """

    async def call(self, project_id: int, key: str) -> IdempotencyRecord | None:
        """The call that was made under this Idempotency-Key, with its answer where that is kept."""

    async def begin_call(self, project_id: int, call: IdempotencyKey, run: RunRecord) -> None:
        """Notes a call that goes on with a run. Raises DuplicateIdempotencyKey for a used key."""

    async def answer_call(self, project_id: int, key: str, *, status: int, answer: bytes) -> None:
        """Keeps an answer that the run does not tell, for repeats of the call; the first one stays."""

    async def forget_calls(self, *, before: str) -> int:
        """Drops the calls older than this ISO time, with the content kept for them; returns how many."""

    async def owed(self, run_no: int, seq: int) -> bytes | None:
        """The content that `Append.owed` kept for the event with this seq."""

    async def expire_answers(self, *, before: str, limit: int) -> int:
        """Drops content kept for callers of runs that ended before this ISO time, and older answers to calls.

        Of each the oldest, as many as `limit` at most and fewer where they are large; returns how many. That
        a call was made stays known. Costs next to nothing where nothing is due.
        """

    async def drop_checkpoints(self, *, limit_rows: int, limit_bytes: int) -> bool:
        """Deletes some checkpoints that long and large runs left behind; False if there are none."""

    async def scrub(self) -> bool:
        """Takes deleted content out of every file of the store; False where it cannot yet: call it again.

        Costs nothing where no content was deleted since.
        """

    @property
    def clock(self) -> Clock:
        """The clock that all processes of the store go by: what one dates another compares with now.

        It is right from when the store is open.
        """

    @property
    def generation(self) -> int:
        """Rises where the store may have lost its newest commits: it was restarted, or replaced by a standby.

        Whoever holds something that it has read compares it then. 0 for ever where that cannot be.
        """

    async def note_setback(self, run_id: str, project_id: int, *, had: int) -> bool:
        """Notes that the store had the run's events up to `had`, and now has less or others.

        The audit log has it, too. False where that was noted before, or the run was deleted by hand.
        """

    async def setbacks(self, run_id: str) -> list[Setback]:
        """What the run had at starts of the database, newest first: the last start, and those with a loss.

        Of the last 30 days. Also of a run that is gone; none of one that was created since.
        """

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

    async def claim_maintenance(self, task: str, *, for_s: float) -> bool:
        """Whether this process is to do the task for the next `for_s` seconds, and no other one is.

        Who has it may claim it again before that, and so keep it.
        """

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

    async def hold_budget(self, hold: UUID, run: RunRecord, usd: Decimal) -> BudgetDecision:
        """Holds so much of the budget of the run's project, where there is room for it, beside other holds.

        Until `release_budget`, or until the run goes on with another fence or without an owner.
        """

    async def release_budget(self, hold: UUID) -> None:
        """Ends a hold, once the store has what it was held for, or nothing is to come of it."""

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

    async def request_cancel(self, run_id: str, *, reason: str) -> str | None:
        """Notes for whoever has the run, or claims it, that it is to be cancelled; an earlier note stays.

        Returns the owner, empty where nobody has the run; None if it has ended or is not there.
        """

    async def cancel_requests(self, owner: str) -> dict[str, str]:
        """The runs of `owner` that are to be cancelled, and the reasons, by run id."""

    async def owned_runs(self, owner: str) -> dict[str, int]:
        """The head of each run that is the owner's, by run id."""

    async def release_run(self, run_id: str, owner: str) -> None:
        """Frees a run of `owner` for the next claim; the claim by `owner` does not count."""

    async def append(self, batch: Append) -> None:
        """Writes the batch. Raises WrongExpectedVersion if head or fence are not the run's."""

    async def run(self, run_id: str) -> RunRecord | None: ...
    async def outcome(self, run_no: int) -> tuple[bytes | None, bytes | None]:
        """Result and error of a run, as its caller is to have them; both None once they have expired."""

    async def session_runs(
        self, project_id: int, session_id: str, *, after: str, limit: int
    ) -> list[RunRecord]:
        """The first runs tagged with this session that come after run id `after`, oldest first."""

    async def request(self, run_no: int) -> bytes | None:
        """`NewRun.request`, as long as the run has not ended."""

    async def paused_runs(self) -> list[RunRecord]:
        """All runs whose status is paused, oldest first."""

    async def runs(
        self, project_id: int, query: RunQuery, *, after: ListPosition | None = None, limit: int
    ) -> FoundRuns:
        """The project's runs that meet the query, newest first, from behind `after` on.

        Takes some hundredths of a second at most: a page of a query that would take longer is not full.
        """

    async def count_runs(
        self,
        project_id: int,
        query: RunQuery,
        *,
        until_ms: int,
        buckets: int,
        lengths_ms: Sequence[int] = (),
    ) -> RunCounts:
        """How many runs meet the query, in intervals of equal length by when they were created.

        From the time that the query names, or else that of the first run that may meet it, up to before
        `until_ms`. The intervals are `Intervals.over` this time. Takes some tenths of a second at most.
        """

    async def last_change(self, project_id: int) -> int:
        """The number of the newest change of the project's runs; 0 where there was none yet."""

    async def changed_runs(
        self, project_id: int, query: RunQuery, *, after: int, limit: int
    ) -> list[ChangedRun]:
        """The project's runs whose newest change has a number above `after`, by that number.

        A change is that a run is created or that its status changes. They are numbered in the order of
        their commits, and no reader sees a number before all lower ones. Texts are looked for as long as
        `runs` does; a run for which that is too short does not meet the query.
        """

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

    async def due_outline(self) -> RunRecord | None:
        """The newest run that has ended with `LARGE_RUN_EVENTS` or more and whose outline is not kept yet.

        None if there is none. Costs no more than what it finds.
        """

    async def keep_outline(self, run_no: int, part: int, data: bytes) -> None:
        """Keeps a part of the packed outline of a run that has ended: it counts among the run's bytes.

        Part 0 comes last, and the outline is due no more. Does nothing where the run is not there any more.
        """

    async def pass_over_outline(self, run_no: int) -> None:
        """The outline of this run is due no more."""

    async def renew_outline(self, run_no: int) -> None:
        """The outline of this run, which has ended, is due once more. Does nothing where it is not there."""

    async def kept_outline(self, run_no: int) -> list[bytes]:
        """The parts of the run's outline in their order, from part 0 on; none where it is not whole."""

    async def steps(self, run_no: int) -> list[StepRow]:
        """The latest attempt of each step, in order of first start."""

    async def attempts(self, run_no: int, step_id: str) -> list[StepRow]:
        """Every attempt of the step, ordered by position, then attempt number."""

    async def attempt_keys(
        self, run_no: int, step_id: str, *, position: int | None = None, loop_index: str | None = None
    ) -> list[AttemptKey]:
        """As `attempts`, without the data: as cheap for large attempts as for small ones.

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

    async def audit(
        self,
        project_id: int | None,
        *,
        before: int | None = None,
        since: str | None = None,
        action: str | None = None,
        limit: int,
    ) -> list[AuditEntry]:
        """Entries of the audit log, newest first, from the one before id `before` on.

        `project_id` None: of every project. `since` is an ISO time as the store writes them.
        """

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

    async def compact(self, *, limit_bytes: int) -> bool:
        """Gives about so much unused space back to the system; False if there is none worth it."""

    async def raw_rows(self, run_id: str, take: Callable[[str, RawRow], None]) -> bool:
        """Hands every row that belongs to a run to `take`, with its table, as it is; False if there is none.

        `take` is called in another thread, and the next row is read when it returns.
        """
