"""The log of one recorded run, as this process has it: what is stored, and what is about to be.

Knows no dialect, no capture and no other run. Of each span it keeps where its last event is, and no content.
"""

from array import array
from collections.abc import Iterable, Sequence
from datetime import timedelta

import msgspec
from msgspec import json

from runglass.limits.pace import paced_read
from runglass.log.events import KnownEvent, RunStarted, StepRecorded, StreamEvent, decode_event, encode_event
from runglass.log.fold import RunFold, StepChange, recorded_status, recorded_step
from runglass.log.span_state import SpanState
from runglass.log.span_tree import SpanTree
from runglass.log.trace import TERMINAL, RunSummary
from runglass.recording.merge import merge
from runglass.recording.span_worker import EncodedSpan, encoded_span
from runglass.store.base import Store, decoding, summary_of
from runglass.store.records import NO_NUMBERS, Append, RunNumbers, RunRecord, StepRow
from runglass.store.run_logs import RunLog

PAGE_BYTES = 256 * 1024
EVENT_BYTES = 4096
"""More than most events take."""
RUN_BYTES = 8_000
"""About what a run takes in memory beside its spans."""
MOST_OPEN_BYTES = 32 << 20
"""What spans that have not ended may take of a run, about: they are in memory, as their rows end with it."""
NEAR = 16
"""Events that are read along, as that is quicker than to begin anew behind them."""


class RecordedRun:
    """A run with what is known of it; `trace_id` is the sender's.

    All that is recorded waits until it is taken by `append`. Where that is not stored, the state is wrong and
    has to be thrown away.
    """

    __slots__ = (
        *("_earlier", "_events", "_open_bytes", "_open_sizes", "_renamed", "_replaced_bytes", "_rows"),
        *("_sent", "_seqs", "counted_bytes", "first_id", "fold", "head", "last_at", "pending_bytes"),
        *("heard_at", "run", "trace_id"),
    )

    def __init__(self, run: RunRecord, trace_id: str) -> None:
        self.run = run
        self.trace_id = trace_id
        self.fold = RunFold(RunSummary(id=run.id, flow_id=run.flow_id, status="pending"))
        self.first_id = run.id
        """The id of the trace's first run."""
        self._earlier: tuple[RecordedRun, ...] | None = None
        self.head = self._sent = 0
        self._seqs = array("I")
        """Of the last event of each span, in order of their positions, which is that of arrival."""
        self.last_at = ""
        """When the last event was recorded; empty where there is none."""
        self.heard_at = ""
        """When this process last heard that an open span goes on, which is no event; else empty."""
        self._events: list[bytes] = []
        self._rows: dict[int, StepRow] = {}
        self._renamed: list[int] = []
        self._replaced_bytes = 0
        """Of the rows of steps whose place others take."""
        self._open_sizes: dict[int, int] = {}
        self._open_bytes = 0
        self.pending_bytes = 0
        """Of the events that wait for `append`."""
        self.counted_bytes = 0
        """Of `held_bytes`, what its holder has counted."""

    @property
    def ended(self) -> bool:
        """Whether nothing will be recorded any more."""
        return self.fold.status in TERMINAL

    @property
    def held_bytes(self) -> int:
        """About how much memory it and those before it take: the fold has the content of open steps, too."""
        held_bytes = 0
        for run in (self, *(self._earlier or ())):
            held_bytes += RUN_BYTES + run._open_bytes
            if run.fold.tree is not None:
                held_bytes += run.fold.tree.held_bytes
        return held_bytes

    @property
    def is_full(self) -> bool:
        """Whether it takes no more of spans that have not ended."""
        return self._open_bytes > MOST_OPEN_BYTES

    def leaves_open(self, new: SpanState, known: StepRecorded | None) -> bool:
        """Whether a span goes on with this state of it."""
        states = [new] if known is None else [new, known.span]
        return any(each.name for each in states) and not any(each.end_time_unix_nano for each in states)

    def settles_after(self, longest: timedelta) -> timedelta | None:
        """For how long more may come of it, by what its senders say; None while a span is open."""
        if not self.head or self._tree.open_spans:
            return None
        told_s = self._tree.settle_s
        return longest if told_s is None else min(longest, timedelta(seconds=told_s))

    @property
    def _tree(self) -> SpanTree:
        # There from the first event on.
        assert self.fold.tree is not None
        return self.fold.tree

    async def catch_up(self, store: RunLog) -> None:
        """Reads what is stored behind `head`. Raises StoreError, RunUnreadable."""
        while page := await paced_read(
            self.run.project_id,
            lambda: store.events(self.run.no, after=self.head, limit_bytes=PAGE_BYTES),
            size_bytes=self.run.log_bytes,
        ):
            with decoding(self.run.id):
                for _, data in page:
                    self._apply(decode_event(data), len(data))
        self._sent = self.head

    def follow(self, newest: "RecordedRun | None") -> None:
        """Says of a run, newly made, which one it continues."""
        self._earlier = () if newest is None else (*(newest._earlier or ()), newest)

    async def earlier(self, store: Store) -> "tuple[RecordedRun, ...]":
        """The runs of its trace before it. Raises StoreError, RunUnreadable."""
        if self._earlier is None:
            runs = []
            # A run without events can be one that continues another; nobody has said so yet.
            if not self.head or self.first_id != self.run.id:
                for record in await store.earlier_parts(self.run.no):
                    runs.append(RecordedRun(record, self.trace_id))
                    await runs[-1].catch_up(store)
            self._earlier = tuple(runs)
        return self._earlier

    def has(self, span_id: str) -> bool:
        """Whether it has a step of this span."""
        return bool(self.head and self._tree.position_of(span_id))

    async def known(self, store: RunLog, span_ids: Iterable[str]) -> dict[str, StepRecorded]:
        """The last events of those of the spans that the run has. Raises StoreError, RunUnreadable."""
        if not self.head:
            return {}
        position_of = self._tree.position_of
        positions = [position for span_id in span_ids if (position := position_of(span_id))]
        wanted = {self._seqs[position - 1] for position in positions}
        known: dict[str, StepRecorded] = {}
        for first, last in _ranges(sorted(wanted)):
            after = first - 1
            while after < last:
                limit_bytes = min(PAGE_BYTES, EVENT_BYTES * (last - after - 1) + 1)
                page = await store.events(self.run.no, after=after, limit_bytes=limit_bytes)
                if not page:
                    break
                with decoding(self.run.id):
                    for seq, data in page:
                        after = seq
                        if seq > last:
                            break
                        if seq in wanted and isinstance(event := decode_event(data), StepRecorded):
                            known[event.span.span_id] = event
        return known

    def begin(self, at: str) -> None:
        """Records the first event, by what the run's row says. Raises RunUnreadable."""
        summary = summary_of(self.run)
        self.record(
            RunStarted(
                execution_id=self.run.id,
                run_id=self.run.id,
                flow_id=self.run.flow_id,
                flow_slug=summary.flow_slug,
                step_count=0,
                trigger_type=self.run.trigger_type,
                version=self.run.version,
                session_id=self.run.session_id,
                trace_id=self.trace_id,
                continues=None if summary.recording is None else summary.recording.continues,
            ),
            at=at,
        )

    def record_span(self, new: EncodedSpan, known: StepRecorded | None, at: str) -> bytes | None:
        """Records what comes of a span, on what is known of it; gives the event, if there is news."""
        if known is not None:
            merged = merge(known.span, new.decoded())
            if merged is known.span:
                return None
            new = encoded_span(merged)
        head = new.head
        step_id, path = self._tree.address_of(head.span_id, head.name)
        [number] = path or (0,)
        status, step = recorded_status(head), None
        if status == "running":
            step = recorded_step(new.decoded(), step_id, path)
        position = self.fold.take_span(head, step_id, number, step)
        self.head, self.last_at = self.head + 1, max(self.last_at, at)
        name = step_id.encode()
        event = (
            b'{"eventType":"step_recorded","executionId":"%b","seq":%d,"at":"%b","stepId":"%b","loopPath":[%d],"span":%b}'
            % (
                self.run.id.encode(),
                self.head,
                self.last_at.encode(),
                name,
                number,
                new.state,
            )
        )
        row = b'{"stepId":"%b","attempt":1,"loopPath":[%d],%b' % (name, number, new.step)
        self._rows[position] = StepRow(position, step_id, str(number), 1, status, row)
        self._note(position, status, len(event))
        self._events.append(event)
        self.pending_bytes += len(event)
        if known is not None:
            before = recorded_step(known.span, known.step_id, known.loop_path)
            if before.status != "running":
                self._replaced_bytes += len(json.encode(before))
            if known.step_id != step_id:
                self._renamed.append(position)
        return event

    def record(self, event: KnownEvent, *, at: str) -> None:
        """Records an event, newly made, as the next of the run."""
        msgspec.structs.force_setattr(event, "seq", self.head + 1)
        # The log's times do not go back where clocks do.
        msgspec.structs.force_setattr(event, "at", max(self.last_at, at))
        data = encode_event(event)
        for position, step in self._apply(event, len(data)):
            number = str((step.loop_path or (0,))[0])
            self._rows[position] = StepRow(position, step.step_id, number, 1, step.status, json.encode(step))
        self._events.append(data)
        self.pending_bytes += len(data)

    def append(self) -> Append | None:
        """What was recorded since the last one, None where that is nothing."""
        if not self._events:
            return None
        summary, status = self.fold.summary, self.fold.status
        rows = list(self._rows.values())
        has_ended = status in TERMINAL
        batch = Append(
            run_no=self.run.no,
            head=self._sent,
            fence=self.run.fence,
            events=self._events,
            steps=rows,
            status=status,
            summary=json.encode(summary),
            ended_at=self.last_at if has_ended else None,
            numbers=RunNumbers.of(summary) if has_ended else NO_NUMBERS,
            renamed=self._renamed,
            # A row that says `running` is followed by another in its place.
            log_bytes=self.pending_bytes
            + sum(len(row.data) for row in rows if row.status != "running")
            - self._replaced_bytes,
        )
        self._sent = self.head
        self._events, self._rows, self._renamed = [], {}, []
        self.pending_bytes = self._replaced_bytes = 0
        return batch

    def _apply(self, event: StreamEvent, size_bytes: int) -> Sequence[StepChange]:
        """Takes in the next event of the log, recorded or read."""
        self.head, self.last_at = event.seq, event.at
        if isinstance(event, RunStarted):
            self.first_id = event.continues or self.run.id
        changes = self.fold.apply(event)
        if isinstance(event, StepRecorded):
            for position, step in changes:
                self._note(position, step.status, size_bytes)
        return changes

    def _note(self, position: int, status: str, size_bytes: int) -> None:
        """Notes where the newest event of a span is, and what it takes as long as the span goes on."""
        if self._open_sizes:
            self._open_bytes -= self._open_sizes.pop(position, 0)
        if status == "running":
            self._open_sizes[position] = size_bytes
            self._open_bytes += size_bytes
        if position > len(self._seqs):
            self._seqs.append(self.head)
        else:
            self._seqs[position - 1] = self.head


def _ranges(seqs: Sequence[int]) -> list[tuple[int, int]]:
    """The first and last of those of the numbers, which are in order, that lie near to each other."""
    found: list[tuple[int, int]] = []
    for seq in seqs:
        if found and seq - found[-1][1] <= NEAR:
            found[-1] = (found[-1][0], seq)
        else:
            found.append((seq, seq))
    return found
