"""The records that every store takes in and hands out.

More than 300 lines: one list.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

import msgspec

from runglass.errors import PermanentStoreError, WrongExpectedVersion
from runglass.log.money import ZERO
from runglass.log.trace import TERMINAL, RunSummary, RunTotals
from runglass.wire.run_api import CaptureFailed, CaptureMode

Role = str
"""`admin`, `run` or `read`."""


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A room of its own: flows, keys and runs of one project are invisible to another.

    Budget and spending are exact US dollars; requests to models hold `reserved_usd` back. Flows and callers
    may name models that fit `allowed_models`, None for any. `data_bytes` is what runs take, see `RunRecord`.
    """

    id: int
    org: str
    name: str
    capture: CaptureMode | None = None
    budget_usd: Decimal | None = None
    spent_usd: Decimal = ZERO
    retention_days: float | None = None
    content_retention_days: float | None = None
    reserved_usd: Decimal = ZERO
    allowed_models: tuple[str, ...] | None = None
    data_bytes: int = 0
    capture_failed: CaptureFailed | None = None
    capture_sample: float | None = None

    @property
    def is_spent(self) -> bool:
        """Whether a budget is set and nothing of it is left."""
        return self.budget_usd is not None and self.spent_usd >= self.budget_usd


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key as it is kept: never the key, only its hash and its first characters as a hint."""

    id: int
    project_id: int
    role: Role
    hint: str
    created_at: str
    revoked_at: str | None = None


class ViewerSession(msgspec.Struct, frozen=True, kw_only=True):
    """A browser that has signed in, by the hash of its session, and the key that it stands for."""

    digest: bytes
    key: ApiKey
    began_at: str
    used_at: str


class FlowRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A flow of a project. `production_version` is None until a version is published.

    A `recorded` one has runs of other programs, no version, and is not executed. A `deleted` one is there for
    its runs alone, and found by its id alone.
    """

    id: str
    project_id: int
    slug: str
    name: str | None
    capture: CaptureMode | None
    production_version: int | None
    updated_at: str
    retention_days: float | None = None
    content_retention_days: float | None = None
    recorded: bool = False
    deleted: bool = False


class Retention(NamedTuple):
    """How many days after their end runs are kept, and their content; None where nothing is said."""

    days: float | None = None
    content_days: float | None = None


NO_RETENTION = Retention()


class ContentPlace(NamedTuple):
    """How far the content of a run has been taken out: the last row that was."""

    table: str
    key: tuple[int, ...]


class FlowVersion(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A state of a flow; version 0 is the draft. One that an import made is there to be read alone."""

    version: int
    created_at: str
    imported: bool = False


class IdempotencyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A call under an Idempotency-Key, the answer to which begins after seq `head` of its run.

    `status` and `answer` are None where the run tells the answer, `answer` also where a kept one has expired.
    """

    key: str
    digest: bytes
    run_id: str
    head: int = 0
    status: int | None = None
    answer: bytes | None = None


class IdempotencyKey(NamedTuple):
    """An Idempotency-Key and the hash of the request under it."""

    key: str
    digest: bytes


class NewRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run to create, for `owner` to go on with.

    `request` is kept while the run lives; `summary` is the `flowRun` JSON. `key_id` is the key that started
    it, and so is owed its content; None where no key did.
    """

    id: str
    project_id: int
    flow_id: str
    version: int
    trigger_type: str
    capture: CaptureMode
    session_id: str | None
    request: bytes
    summary: bytes
    owner: str | None = None
    call: IdempotencyKey | None = None
    key_id: int | None = None


RECORDED: frozenset[str] = frozenset({"recorded", "plain"})
"""The triggers of runs of other programs; `plain` are those that have nothing of generative AI."""


class NewRecording(NewRun, frozen=True, kw_only=True):
    """A recorded run to create, of a new trace or behind the run with the id `continues`."""

    trace_id: str
    due_at: str
    continues: str | None


LARGE_RUN_EVENTS = 20_000
"""Of a run with so many events the outline is kept once it has ended: to make it takes some 50 ms."""


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A run's row. `no` is the store's own short name for the run, `head` the seq of its last event.

    `fence` counts the writers that have gone on with it: one with an older fence is refused. `claims` counts
    how often it was taken over without the log having grown. `log_bytes` counts its events and steps, and its
    outline where that is kept, `open_bytes` the data that it needs to go on, or once it has ended its result
    or error, and the content kept for calls that are sent again; the last 64 KiB may not be in them yet.
    `resume_head` is where the head was when a next segment was stored for the paused run, -1 before any was;
    `cancel_reason` says that the run is to be cancelled by whoever goes on with it.
    """

    no: int
    id: str
    project_id: int
    flow_id: str
    version: int
    status: str
    trigger_type: str
    capture: CaptureMode
    session_id: str | None
    head: int
    fence: int
    claims: int
    summary: bytes
    key_id: int | None = None
    log_bytes: int = 0
    open_bytes: int = 0
    resume_head: int = -1
    cancel_reason: str | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing will be appended any more."""
        return self.status in TERMINAL

    @property
    def is_recorded(self) -> bool:
        """Whether another program executes it: no process has it, none can go on with it or cancel it."""
        return self.trigger_type in RECORDED

    @property
    def content_seqs(self) -> tuple[int, ...]:
        """Seqs of the events that may have its input and its result; none where neither can be kept."""
        if self.capture == "off" or not self.head:
            return ()
        if self.is_recorded:
            # What its input is is not known before its end.
            return (self.head - 1, self.head) if self.ended else ()
        keeps = self.capture != "metadata_only"
        last = {"failed": self.head - 1, "completed": self.head if keeps else 0}.get(self.status, 0)
        return (2 if keeps else 0, last) if keeps or last else ()

    @property
    def is_resuming(self) -> bool:
        """Whether its next segment is stored: it is paused until the first event of that, and goes on."""
        return self.status == "paused" and self.resume_head == self.head


class OpenedTrace(NamedTuple):
    """A run, the positions and data of the first steps of its trace, and the events at its `content_seqs`."""

    run: RunRecord
    steps: list[tuple[int, bytes]]
    content: Sequence[bytes] = ()


class StoredLog(NamedTuple):
    """What a process has been told that the store has of a run: its events up to `head`.

    `last_at` is the time of the last one, empty where that is not known. `left_at_s` is when the process left
    the run, by the clock of its event loop; None while it goes on there.
    """

    run_id: str
    project_id: int
    head: int
    last_at: str = ""
    left_at_s: float | None = None


class SpanCursor(NamedTuple):
    """Up to which change of a project's runs, of `last`, these have been sent on as spans."""

    project_id: int
    change_no: int
    last: int


class Setback(NamedTuple):
    """A start of the database, noticed `at` an ISO time, when a run had its events up to `head`.

    `head` is None where the run was gone. Those up to `had` were stored before; None where no process has
    said that there were more.
    """

    head: int | None
    had: int | None
    at: str


class RunNumbers(NamedTuple):
    """What a run that has ended adds up to, for finding it by that; None for what is not known."""

    duration_ms: int | None = None
    cost_usd: float | None = None
    tokens: int | None = None

    @classmethod
    def of(cls, summary: RunSummary) -> "RunNumbers":
        """The numbers of a run; none of one that goes on, whose summary still changes."""
        if summary.status not in TERMINAL:
            return NO_NUMBERS
        totals = summary.totals or RunTotals()
        return cls(
            # To a store the number says that the run has ended, also if that was before it began.
            summary.duration_ms or 0,
            None if totals.cost_usd is None else float(totals.cost_usd),
            None if totals.tokens is None else min(int(totals.tokens.total), 2**63 - 1),
        )


NO_NUMBERS = RunNumbers()
"""Those of a run that goes on."""


class StepRow(NamedTuple):
    """The state of one step attempt; `data` is its StepTrace as JSON, ready to send."""

    position: int
    step_id: str
    loop_path: str
    attempt: int
    status: str
    data: bytes


class AttemptKey(msgspec.Struct, frozen=True, gc=False):
    """Which attempt of a step, in which iteration. The garbage collector passes over it."""

    position: int
    loop_path: str
    attempt: int


class Checkpoint(NamedTuple):
    """A finished step's whole output, kept while the run lives so that it need not run again."""

    step_id: str
    loop_path: str
    data: bytes


RawRow = Mapping[str, int | float | str | bytes | None]
"""A row of any table, its values by column."""


class Append(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction on a run: events from `head + 1` on, and all that follows from them.

    `summary` and `status` are the run's after the last event. A terminal status drops the checkpoints and the
    request, and keeps `result` and `error`, which the caller is owed. `owner` goes on with the run. If it
    has ended, `ended_at` says when and `numbers` what it adds up to. `dropped` are ids of steps whose
    checkpoints are void. `owed`, by seq, is content of events that a repeated call gets beside the log.
    `spent_usd` joins the project's spending, `reserved_usd` what is held back of its budget: less than 0 if
    more was given back than taken. `log_bytes` and `open_bytes` join those of the run and of its project.
    `renamed` are positions of steps that have another id than in the append before.
    """

    run_no: int
    head: int
    fence: int
    events: Sequence[bytes]
    steps: Sequence[StepRow] = ()
    checkpoints: Sequence[Checkpoint] = ()
    status: str
    summary: bytes
    owner: str | None = None
    dropped: Sequence[str] = ()
    owed: Sequence[tuple[int, bytes]] = ()
    result: bytes | None = None
    error: bytes | None = None
    spent_usd: Decimal = ZERO
    reserved_usd: Decimal = ZERO
    ended_at: str | None = None
    log_bytes: int = 0
    open_bytes: int = 0
    numbers: RunNumbers = NO_NUMBERS
    renamed: Sequence[int] = ()

    def check_charge(self) -> None:
        """Raises PermanentStoreError where the project would have spent less afterwards."""
        if not self.spent_usd.is_finite() or self.spent_usd < ZERO:
            raise PermanentStoreError(f"an append to run {self.run_no} would spend ${self.spent_usd}")

    @property
    def refusal(self) -> WrongExpectedVersion:
        """The error where head or fence are not the run's any more."""
        return WrongExpectedVersion(
            f"run number {self.run_no} is not at seq {self.head} with fence {self.fence} any more: another"
            " process goes on with it"
        )


class RunListing(NamedTuple):
    """A run in a list: some columns of its row, and its `flowRun` JSON."""

    id: str
    flow_id: str
    status: str
    trigger_type: str
    summary: bytes
    flow_slug: str | None
    version: int
    session_id: str | None
    ended_at: str | None
    duration_ms: int | None


class ListPosition(NamedTuple):
    """How far a list of runs has come: down to run `run_id`, and in its log to event `seq`, if not below it.

    `met` are the texts of the query that were met in that log so far, as bits.
    """

    run_id: str
    seq: int = 0
    met: int = 0


class FoundRuns(NamedTuple):
    """Runs of a query, newest first. `position` is where the next page begins, None where there is none.

    A page may have fewer runs than were asked for, even none, and a position all the same: so far the store
    has looked. `last_change` is the number of the project's newest change that the page has seen.
    """

    runs: list[RunListing]
    position: ListPosition | None
    last_change: int


class ChangedRun(NamedTuple):
    """A run that was created, or whose status has changed, by the number of its newest change.

    `listing` is None where the run does not meet the query; `could_meet` says whether it may have met it
    before, by what never changes of it.
    """

    number: int
    run_id: str
    listing: RunListing | None
    could_meet: bool


class RunCounts(NamedTuple):
    """How many runs were created, and of these how many have failed, in intervals of `bucket_ms` each.

    Where there are too many to count, older ones than `counted_from_ms` are not in it.
    """

    from_ms: int
    bucket_ms: int
    runs: list[int]
    failed: list[int]
    counted_from_ms: int | None = None
