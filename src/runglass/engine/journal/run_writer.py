"""The only writer of a run's log.

Each event gets its seq and time, is folded and encoded once, and goes to the store together with the rows
that follow from it. Events recorded in one turn of the event loop travel in one append; no reader hears of an
event before its append has been committed.

More than 300 lines: what is recorded of a run, what is on its way and what is stored are one order.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field
from decimal import Decimal
from time import perf_counter

from msgspec import json
from msgspec.structs import force_setattr

from runglass.bus.base import Bus, progress_of, runs_of
from runglass.engine.journal.checkpoints import path_text
from runglass.errors import PermanentStoreError, StoreError, WrongExpectedVersion
from runglass.limits.pace import LARGE_WRITE_BYTES, note_activity, paced_write
from runglass.log.events import KnownEvent, RunStarted, encode_event
from runglass.log.fold import RunFold, StepChange
from runglass.log.measurements import measured
from runglass.log.money import ZERO, subtract_usd
from runglass.log.trace import TERMINAL
from runglass.store.records import NO_NUMBERS, Append, Checkpoint, RunNumbers, RunRecord, StepRow
from runglass.store.run_logs import RunLog
from runglass.support.clock import Clock, iso

log = logging.getLogger(__name__)

LARGE_CHANGE_BYTES = 64 * 1024
"""So much is written before it is added to the counted bytes of the run and its project."""
MOST_UNDER_WAY = 4 << 20
"""With more on its way to the store, a step waits until all of it is stored: memory is bounded, too."""


# With slots: for so many attributes a dictionary would take 1.5 kB for each run. Its repr would have content.
@dataclass(eq=False, repr=False, slots=True)
class RunWriter:
    """Appends to one run of `owner`, in the order in which `record` is called.

    No event is dated before `not_before`. The costs since the append before are charged to the project
    with each append: the run's cost and the budget are one number. Reservations for requests to models travel
    in the same way.
    """

    _store: RunLog
    _bus: Bus
    run: RunRecord
    """The run, as it was when this writer began."""
    fold: RunFold
    """The run's state after the last recorded event."""
    _clock: Clock
    _: KW_ONLY
    owner: str | None = None
    not_before: InitVar[str] = ""
    head: int = field(init=False)
    """Seq of the last recorded event."""
    stored_head: int = field(init=False)
    """Seq of the last event that the store has said to have."""
    stored_last_at: str = field(init=False)
    """Its time; empty where that is not known."""
    log_bytes: int = field(init=False)
    """Of all events and steps of the run so far."""
    _at: str = field(init=False)
    _sent: int = field(init=False)
    _stored_status: str = field(init=False)
    _charged_usd: Decimal = field(init=False)
    _reserved_usd: Decimal = field(init=False)
    _counted_log: int = field(init=False)
    _sent_bytes: int = field(init=False)
    _stored_bytes: int = field(init=False)
    _open_bytes: int = field(init=False, default=0)
    _counted_open: int = field(init=False, default=0)
    _events: list[bytes] = field(init=False, default_factory=list)
    _changes: dict[tuple[int, int], StepChange] = field(init=False, default_factory=dict)
    _checkpoints: list[Checkpoint] = field(init=False, default_factory=list)
    # Few runs have any, and those that wait are many.
    _dropped: tuple[str, ...] = field(init=False, default=())
    _owed: tuple[tuple[int, bytes], ...] = field(init=False, default=())
    _is_send_due: bool = field(init=False, default=False)
    _append: asyncio.Task[None] | None = field(init=False, default=None)
    _appends: list[asyncio.Task[None]] = field(init=False, default_factory=list)
    _large: asyncio.Task[None] | None = field(init=False, default=None)
    _failure: StoreError | None = field(init=False, default=None)
    _result: bytes | None = field(init=False, default=None)
    _error: bytes | None = field(init=False, default=None)

    def __post_init__(self, not_before: str) -> None:
        run, fold = self.run, self.fold
        self.head = self.stored_head = self._sent = run.head
        self._at = self.stored_last_at = not_before
        self.log_bytes = self._counted_log = self._sent_bytes = self._stored_bytes = run.log_bytes
        self._stored_status = run.status
        self._charged_usd = fold.totals.spent.cost_usd or ZERO
        self._reserved_usd = fold.reserved_usd

    def begin(self) -> None:
        """Adds the first event of a run, which holds what its summary has held from the start."""
        run, summary = self.run, self.fold.summary
        self.record(
            RunStarted(
                execution_id=run.id,
                run_id=run.id,
                flow_id=run.flow_id,
                flow_slug=summary.flow_slug,
                step_count=summary.step_count or 0,
                trigger_type=run.trigger_type,
                version=run.version,
                session_id=run.session_id,
                started_by=summary.started_by,
                trace_parent=summary.trace_parent,
                trace_state=summary.trace_state,
                rerun_of=summary.rerun_of,
            )
        )

    def record(self, *events: KnownEvent, checkpoint: Checkpoint | None = None) -> None:
        """Adds events, newly made and not shared yet, as the next of the run, all of them at this moment.

        They are sent off at the end of this turn of the event loop, or by `commit`, whichever comes first.
        """
        if not self._is_send_due:
            asyncio.get_running_loop().call_soon(self._send)
            self._is_send_due = True
        # Clocks are set back now and then; the log's times are not.
        self._at = max(self._at, iso(self._clock.now()))
        for event in events:
            self.head += 1
            force_setattr(event, "seq", self.head)
            force_setattr(event, "at", self._at)
            data = encode_event(event)
            self.log_bytes += len(data)
            self._events.append(data)
            for change in self.fold.apply(event):
                self._changes[change.position, change.step.attempt] = change
        measured.note(events)
        if checkpoint is not None:
            self._checkpoints.append(checkpoint)
            self._open_bytes += len(checkpoint.data)

    def record_with_next(self, event: KnownEvent, *, checkpoint: Checkpoint | None = None) -> None:
        """Adds an event as `record` does, to travel with the one that follows, or with the next `commit`."""
        is_due, self._is_send_due = self._is_send_due, True
        self.record(event, checkpoint=checkpoint)
        self._is_send_due = is_due

    def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Adds a checkpoint, to travel with the next event."""
        self._checkpoints.append(checkpoint)
        self._open_bytes += len(checkpoint.data)

    def invalidate_checkpoints(self, step_ids: Sequence[str]) -> None:
        """Makes the checkpoints of these steps void, with the next event."""
        self._dropped += tuple(step_ids)

    def keep_replay(self, data: bytes) -> None:
        """Keeps the content that the last event has for a call that is sent again."""
        self._owed += ((self.head, data),)
        self._open_bytes += len(data)

    def set_outcome(self, *, result: bytes | None = None, error: bytes | None = None) -> None:
        """Keeps the result or error that the run's caller is owed, with the event that ends the run."""
        self._result, self._error = result, error

    def fail(self, error: StoreError) -> None:
        """Stores nothing more: the run is left as the store has it, for the process that goes on with it."""
        self._failure = self._failure or error

    async def checkpoint(self, address: tuple[str, str]) -> bytes:
        """A checkpoint of the run, once it is stored, or that waits for its event. Raises as `commit`."""
        await self.commit()
        for waiting in self._checkpoints:
            if (waiting.step_id, waiting.loop_path) == address:
                return waiting.data
        try:
            data = await self._store.checkpoint(self.run.no, *address)
        except StoreError as error:
            # A step that is cut off by this goes on later: no event may say that it was lost.
            self.fail(error)
            raise
        if data is None:
            gone = WrongExpectedVersion(f"run {self.run.id!r} was ended by another process")
            self.fail(gone)
            raise gone
        return data

    async def commit(self) -> None:
        """Returns when all that was recorded is stored.

        Raises StoreError, or WrongExpectedVersion, if it cannot be; nothing further is stored then.
        """
        self._send()
        await self._stored(self._append)

    async def await_previous_append(self) -> None:
        """Sends off what was recorded; returns when all that was sent before is stored. Raises as `commit`.

        One append is then on its way while the next one comes about: see the decision on being one ahead.
        """
        append = self._append
        self._send()
        if self.log_bytes + self._open_bytes - self._stored_bytes > MOST_UNDER_WAY:
            append = self._append
        # Asked at each step, and mostly there is nothing to wait for.
        if append is not None or self._failure is not None:
            await self._stored(append)

    @property
    def is_behind(self) -> bool:
        """Whether so much waits to be stored that the next record must `await_previous_append` first."""
        return self.log_bytes + self._open_bytes - self._stored_bytes > LARGE_CHANGE_BYTES

    async def _stored(self, append: asyncio.Task[None] | None) -> None:
        if append is not None and not append.done():
            # Several tasks may wait for one append: that one of them is cancelled must not undo it.
            await asyncio.shield(append)
        if self._failure is not None:
            message = f"run {self.run.id!r} cannot be recorded: {self._failure}"
            raise type(self._failure)(message) from self._failure

    async def close(self) -> None:
        """Waits until nothing is on its way to the store any more, whether it arrived or not."""
        self._send()
        if self._appends:
            await asyncio.wait(self._appends[:])

    def _send(self) -> None:
        self._is_send_due = False
        # An append that the store reports as failed may be in it all the same: nothing may follow on that.
        if not self._events or self._failure is not None:
            return
        note_activity(self.run.project_id)
        status, summary = self.fold.status, self.fold.summary
        spent_usd, reserved_usd = self.fold.totals.spent.cost_usd or ZERO, self.fold.reserved_usd
        rows = step_rows(self._changes.values())
        # A row that says `running` is followed by another in its place.
        for row in rows:
            if row.status != "running":
                self.log_bytes += len(row.data)
        log_bytes = self.log_bytes - self._counted_log
        open_bytes = self._open_bytes - self._counted_open
        # Not with each append: it would cost two more statements, and somewhat less is near enough.
        counted = log_bytes + open_bytes >= LARGE_CHANGE_BYTES or status != "running"
        batch = Append(
            run_no=self.run.no,
            head=self._sent,
            fence=self.run.fence,
            events=self._events,
            steps=rows,
            checkpoints=self._checkpoints,
            dropped=self._dropped,
            owed=self._owed,
            status=status,
            summary=json.encode(summary),
            owner=self.owner if status == "running" else None,
            result=self._result,
            error=self._error,
            spent_usd=ZERO if spent_usd is self._charged_usd else subtract_usd(spent_usd, self._charged_usd),
            reserved_usd=subtract_usd(reserved_usd, self._reserved_usd)
            if reserved_usd is not self._reserved_usd
            else ZERO,
            ended_at=self._at if status in TERMINAL else None,
            numbers=RunNumbers.of(summary) if status in TERMINAL else NO_NUMBERS,
            log_bytes=log_bytes if counted else 0,
            open_bytes=open_bytes if counted else 0,
        )
        self._charged_usd, self._reserved_usd = spent_usd, reserved_usd
        self._sent = self.head
        if counted:
            self._counted_log, self._counted_open = self.log_bytes, self._open_bytes
        self._events, self._changes, self._checkpoints = [], {}, []
        self._dropped, self._owed = (), ()
        upto_bytes = self.log_bytes + self._open_bytes
        size_bytes = upto_bytes - self._sent_bytes + len(self._result or b"")
        self._sent_bytes = upto_bytes
        # A large append waits for its turn, and the appends behind it wait, too.
        before = self._large
        if size_bytes > LARGE_WRITE_BYTES or (before is not None and not before.done()):
            write = self._write_in_turn(batch, self._at, upto_bytes, size_bytes, before)
            self._append = self._large = asyncio.create_task(write)
        else:
            self._append = asyncio.create_task(self._write(batch, self._at, upto_bytes))
        self._appends.append(self._append)
        self._append.add_done_callback(self._forget)

    def _forget(self, append: asyncio.Task[None]) -> None:
        # A run may wait for days, and a task that is done takes as much memory as one that is not.
        self._appends.remove(append)
        if append is self._append:
            self._append = None
        if append is self._large:
            self._large = None

    async def _write_in_turn(
        self,
        batch: Append,
        last_at: str,
        upto_bytes: int,
        size_bytes: int,
        before: asyncio.Task[None] | None,
    ) -> None:
        if before is not None:
            await asyncio.wait((before,))
        async with paced_write(self.run.project_id, size_bytes):
            await self._write(batch, last_at, upto_bytes)

    async def _write(self, batch: Append, last_at: str, upto_bytes: int) -> None:
        # The store takes appends in the order in which they are made, so they need not wait for each other;
        # one behind another that failed is refused by its head.
        began_s = perf_counter()
        try:
            await self._store.append(batch)
        # No caller awaits this task for its exception: the run has to hear of every error of the store.
        except Exception as error:
            measured.failed_appends += 1
            if isinstance(error, StoreError):
                self.fail(error)
                return
            log.exception("an append to run %s failed inside the store", self.run.id)
            failure = PermanentStoreError(f"{type(error).__name__} inside the store")
            failure.__cause__ = error
            self.fail(failure)
            return
        finally:
            self._stored_bytes = upto_bytes
        measured.append_s.add(perf_counter() - began_s)
        self.stored_head = batch.head + len(batch.events)
        self.stored_last_at = last_at
        is_change, self._stored_status = batch.status != self._stored_status, batch.status
        try:
            await self._bus.wake(self.run.id)
            if is_change:
                await self._bus.wake(runs_of(self.run.project_id))
            if batch.status != "running":
                await self._bus.wake(progress_of(self.run.id))
        except Exception:
            # The events are stored, and readers look by themselves after a while.
            log.exception("readers of run %s could not be woken", self.run.id)


def step_rows(changes: Iterable[StepChange]) -> list[StepRow]:
    """The rows of attempts that a store keeps: one for each change, with its StepTrace as JSON."""
    rows = []
    for position, step in changes:
        path = path_text(step.loop_path) if step.loop_path else ""
        rows.append(StepRow(position, step.step_id, path, step.attempt, step.status, json.encode(step)))
    return rows
