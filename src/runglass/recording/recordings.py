"""Recorded runs: what other programs executed, written to the log as what they send comes in.

All spans of a trace go through its lock, so their order is that of their arrival. Another process that writes
to the same run is found out by the head of its log: what it has written is read, and the work is done again.
What is acknowledged is on disk; what is not may be, and its repeat adds nothing.

More than 300 lines: from the spans of a request to their commit.
"""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from time import perf_counter
from typing import NamedTuple, TypeVar
from weakref import WeakValueDictionary

from msgspec import json
from msgspec.structs import replace

from runglass.bus.base import Bus, progress_of, runs_of
from runglass.engine.capture.capture import Capture, capture_of_run
from runglass.errors import RunUnreadable, StoreError, WrongExpectedVersion, api_error
from runglass.limits.pace import note_activity, paced, paced_write
from runglass.log.events import StepRecorded
from runglass.log.fold import DAMAGE, session_id_of
from runglass.log.measurements import measured
from runglass.log.trace import Recording, RunSummary
from runglass.recording.content import captured
from runglass.recording.merge import merge
from runglass.recording.recorded_run import RecordedRun
from runglass.recording.span_worker import UNUSABLE, EncodedSpan, Piece, ReadSpan, encoded_span
from runglass.store.base import Store
from runglass.store.records import FlowRecord, NewRecording, Project, RunRecord
from runglass.support.clock import Clock, iso
from runglass.wire.run_api import CaptureFailed, CaptureMode

MOST_HELD_BYTES = 96 << 20
"""What the runs take whose state stays in memory; others are read back."""
TRACES_AT_ONCE = 100
"""So many runs of a request are written together."""
APPEND_BYTES = 1 << 20
"""About so much of a request is written at once; what others write comes between."""
KNOWN_AT_ONCE = 64
"""Of so many spans what is known is in memory together: each can be as large as a request."""
SLICE_S = 0.004
"""So long the spans of a request keep the event loop at a time."""
TRIES = 8
"""So often a write is done again on top of what another process has written."""

DELETED = "the run of this trace was deleted"
UNREADABLE = "the log of this trace's run is damaged"
TOO_MANY_OPEN = "its trace has too much in spans that have not ended; it is taken once it has ended"

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class CaptureSetting(NamedTuple):
    """What a flow says of its recorded runs, or by its defaults what holds where nobody says anything."""

    capture: CaptureMode | None = "redacted"
    capture_failed: CaptureFailed | None = "off"
    capture_sample: float | None = 0.0


class Recorded(NamedTuple):
    """Of a request, how much was refused, by the reason, and how the content of its runs is kept."""

    refused: Counter[str]
    modes: set[CaptureMode]


class Incoming(NamedTuple):
    """What a request has of one trace, and the flow that it is for."""

    slug: str
    spans: list[ReadSpan]


class Recordings:
    """Takes in what other programs send.

    A run is looked at `settle` after its first span, to see whether it has ended. A project has `most_flows`
    of recorded runs. `is_alone` says that no other process writes to the store.
    """

    def __init__(
        self,
        *,
        store: Store,
        bus: Bus,
        clock: Clock,
        new_id: Callable[[], str],
        make_capture: Callable[[CaptureMode], Capture],
        settle: timedelta,
        most_flows: int,
        is_alone: bool,
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._new_id = new_id
        self._make_capture = make_capture
        self._settle = settle
        self._most_flows = most_flows
        self._is_alone = is_alone
        self._locks: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()
        self._open: OrderedDict[tuple[int, str], RecordedRun] = OrderedDict()
        self._requests_by_trace: Counter[tuple[int, str]] = Counter()
        """How many requests under way have spans of a trace."""
        self._held_bytes = 0

    @property
    def open_runs(self) -> int:
        """Runs that have not ended and whose state is in memory."""
        return sum(not run.ended for run in self._open.values())

    async def record(self, project: Project, pieces: AsyncIterator[Piece]) -> Recorded:
        """Stores what is new in a request; returns, once that is done, what came of it.

        None of its runs ends in this process between two pieces. Raises what the pieces raise, StoreError,
        or APIError UNAVAILABLE: the request is to be sent again, which stores the rest.
        """
        recorded = Recorded(Counter(), set())
        traces: set[tuple[int, str]] = set()
        try:
            async for piece in pieces:
                await self._record(project, piece, traces, recorded)
        finally:
            self._requests_by_trace -= Counter(traces)
        return recorded

    async def _record(
        self, project: Project, piece: Piece, traces: set[tuple[int, str]], recorded: Recorded
    ) -> None:
        """Stores a piece of a request, and adds what comes of it; `traces` are those of the pieces so far."""
        began_s = perf_counter()
        note_activity(project.id)
        recorded.refused.update(piece.refused)
        for error in piece.errors:
            log.error("a span could not be recorded: %s", error)
        incoming = await self._by_trace(project, piece)
        trace_ids = [*incoming]
        new = {(project.id, trace_id) for trace_id in trace_ids} - traces
        self._requests_by_trace.update(new)
        traces |= new
        for first in range(0, len(trace_ids), TRACES_AT_ONCE):
            some = {each: incoming.pop(each) for each in trace_ids[first : first + TRACES_AT_ONCE]}
            async with self.locked(project.id, sorted(some)):
                recorded.refused.update(await self._written(project, some))
                found = (self._open.get((project.id, trace_id)) for trace_id in some)
                recorded.modes.update(run.run.capture for run in found if run is not None)
        measured.readable_s.add(perf_counter() - began_s)

    def is_receiving(self, project_id: int, trace_id: str) -> bool:
        """Whether a request that has spans of the trace is not stored whole."""
        return (project_id, trace_id) in self._requests_by_trace

    @asynccontextmanager
    async def locked(self, project_id: int, trace_ids: Iterable[str]) -> AsyncIterator[None]:
        """Nobody else in this process writes to these runs in the block. The ids are in order."""
        async with AsyncExitStack() as stack:
            # In order, or two requests would wait for each other.
            for trace_id in trace_ids:
                lock = self._locks.setdefault((project_id, trace_id), asyncio.Lock())
                await stack.enter_async_context(lock)
            yield

    async def open(self, run: RunRecord, trace_id: str) -> RecordedRun:
        """The run with all that the store has of it. Raises StoreError, RunUnreadable."""
        key = (run.project_id, trace_id)
        known = self._open.get(key)
        if known is None or known.run.no != run.no:
            known = RecordedRun(run, trace_id)
        if known.head < run.head:
            await known.catch_up(self._store)
        self._hold(known)
        return known

    def forget(self, run: RecordedRun) -> None:
        """Lets go of a state that may not be that of the store any more."""
        key = (run.run.project_id, run.trace_id)
        if self._open.get(key) is run:
            del self._open[key]
            self._held_bytes -= run.counted_bytes

    def _hold(self, run: RecordedRun) -> None:
        """Keeps the state, as the one that was used last, and lets go of the oldest beyond the limit."""
        key = (run.run.project_id, run.trace_id)
        if (before := self._open.get(key)) is not run:
            if before is not None:
                self._held_bytes -= before.counted_bytes
            run.counted_bytes = 0
            self._open[key] = run
        self._open.move_to_end(key)
        self._held_bytes += run.held_bytes - run.counted_bytes
        run.counted_bytes = run.held_bytes
        while self._held_bytes > MOST_HELD_BYTES and len(self._open) > 1:
            _, oldest = self._open.popitem(last=False)
            self._held_bytes -= oldest.counted_bytes

    async def store(self, runs: Collection[RecordedRun]) -> None:
        """Stores what was recorded of these runs of one project, all in one commit where that can be.

        Raises StoreError, or WrongExpectedVersion where another process has written to one of them; all of
        the states have to be forgotten then.
        """
        batches, slice_ = [], _Slice(0)
        for run in runs:
            if perf_counter() > slice_.until_s:
                slice_ = _Slice(run.run.project_id)
                await slice_.rest()
            await self._show(run)
            if (batch := run.append()) is not None:
                batches.append((run, batch))
        if not batches:
            return
        project_id = batches[0][0].run.project_id
        began_s = perf_counter()
        async with paced_write(project_id, sum(batch.log_bytes for _, batch in batches)):
            try:
                await _all(self._store.append(batch) for _, batch in batches)
            except StoreError:
                measured.failed_appends += 1
                raise
        measured.append_s.add(perf_counter() - began_s)
        for run, _ in batches:
            await self._bus.wake(run.run.id)
            if run.ended:
                await self._bus.wake(progress_of(run.run.id))
        if any(not batch.head or run.ended for run, batch in batches):
            await self._bus.wake(runs_of(project_id))

    async def _show(self, run: RecordedRun) -> None:
        """Brings the row of a run up to date with what its spans tell by now, for lists and sessions."""
        told, row = run.fold.summary, run.run
        is_plain = row.trigger_type == "plain" and told.trigger_type == "plain"
        if is_plain == (row.trigger_type == "plain") and told.session_id in (None, row.session_id):
            return
        # Before the log, so that what is acknowledged is found; where that is not stored, its repeat is.
        await self._store.show_recording(row.no, is_plain=is_plain, session_id=told.session_id)
        trigger_type = "plain" if is_plain else "recorded"
        run.run = replace(row, trigger_type=trigger_type, session_id=told.session_id or row.session_id)

    async def _by_trace(self, project: Project, piece: Piece) -> dict[str, Incoming]:
        incoming: dict[str, Incoming] = {}
        own_runs: dict[str, bool] = {}
        measured.spans["received"] += len(piece.spans)
        for span in piece.spans:
            if (run_id := span.own_run_id) is not None:
                if run_id not in own_runs:
                    run = await self._store.run(run_id)
                    own_runs[run_id] = (
                        run is not None and run.project_id == project.id and not run.is_recorded
                    )
                if own_runs[run_id]:
                    if span.link is None:
                        measured.spans["repeated"] += 1
                        continue
                    span = span.link
            of_trace = incoming.get(span.trace_id)
            if of_trace is None:
                of_trace = incoming[span.trace_id] = Incoming(span.slug, [])
            of_trace.spans.append(span)
        return incoming

    async def _written(self, project: Project, incoming: Mapping[str, Incoming]) -> Counter[str]:
        """Writes it, again where another process comes between; returns what was refused."""
        for _ in range(TRIES):
            refused: Counter[str] = Counter()
            runs: dict[str, RecordedRun] = {}
            try:
                await self._find(project, incoming, runs, refused)
                counts = await self._write(project, incoming, runs, refused)
            except BaseException as error:
                # Events may be in them that the store does not have.
                for run in runs.values():
                    self.forget(run)
                if not isinstance(error, WrongExpectedVersion):
                    raise
            else:
                for run in runs.values():
                    self._hold(run)
                measured.spans.update(counts)
                return refused
        message = "other processes write to the same traces; send the request again"
        raise api_error("UNAVAILABLE", message)

    async def _find(
        self,
        project: Project,
        incoming: Mapping[str, Incoming],
        runs: dict[str, RecordedRun],
        refused: Counter[str],
    ) -> None:
        """Puts the run of each trace into `runs`, newly made where there is none that goes on.

        Raises StoreError, and WrongExpectedVersion where another process has made one at the same time.
        """
        asked = []
        for trace_id in incoming:
            known = self._open.get((project.id, trace_id))
            if known is None or known.ended or not self._is_alone:
                asked.append(trace_id)
            else:
                runs[trace_id] = known
        found = await self._store.recorded_traces(project.id, asked) if asked else {}
        before: dict[str, RecordedRun | None] = {}
        for trace_id in asked:
            count = len(incoming[trace_id].spans)
            if trace_id not in found:
                before[trace_id] = None
            elif (record := found[trace_id]) is None:
                refused[DELETED] += count
            else:
                try:
                    run = await self.open(record, trace_id)
                    (before if run.ended else runs)[trace_id] = run
                except RunUnreadable:
                    refused[UNREADABLE] += count
        for some in (runs, before):
            for trace_id, newest in list(some.items()):
                try:
                    if newest is not None:
                        await self._drop_repeated(newest, incoming[trace_id])
                    if incoming[trace_id].spans:
                        continue
                except RunUnreadable:
                    refused[UNREADABLE] += len(incoming[trace_id].spans)
                del some[trace_id]
        flows: dict[str, FlowRecord] = {}
        for slug in {incoming[trace_id].slug for trace_id in before}:
            flows[slug] = await self._store.recorded_flow(project.id, slug, most=self._most_flows)
        made = await _all(
            self._begun(project, flows[incoming[trace_id].slug], trace_id, incoming[trace_id], newest)
            for trace_id, newest in before.items()
        )
        runs.update(zip(before, made, strict=True))

    async def _begun(
        self,
        project: Project,
        flow: FlowRecord,
        trace_id: str,
        incoming: Incoming,
        newest: RecordedRun | None,
    ) -> RecordedRun:
        """A new run of the trace, behind its `newest` one, which has ended."""
        run_id = self._new_id()
        heads = [span.head for span in incoming.spans]
        told = [head for head in heads if head.session]
        first = min(told, key=lambda head: int(head.start_time_unix_nano or 0), default=None)
        session_id = session_id_of(first.session) if first is not None and first.session else None
        # What comes behind a run that lists show is not to be lost from them.
        is_shown = newest is not None and newest.run.trigger_type == "recorded"
        is_shown = is_shown or any(head.is_gen_ai for head in heads)
        trigger_type = "recorded" if is_shown else "plain"
        first_id = None if newest is None else newest.first_id
        summary = RunSummary(
            id=run_id,
            flow_id=flow.id,
            status="pending",
            trigger_type=trigger_type,
            flow_slug=flow.slug,
            version=0,
            session_id=session_id,
            recording=Recording(trace_id=trace_id, continues=first_id),
        )
        waits_s = [head.settle_s if head.end_time_unix_nano else head.lease_s for head in heads]
        first_look = min([self._settle, *(timedelta(seconds=each) for each in waits_s if each is not None)])
        of_flow = CaptureSetting(flow.capture, None, None)
        record = await self._store.create_recording(
            NewRecording(
                id=run_id,
                project_id=project.id,
                flow_id=flow.id,
                version=0,
                trigger_type=trigger_type,
                capture=capture_of_run(run_id, of_flow, project, CaptureSetting()).mode,
                session_id=session_id,
                request=b"",
                summary=json.encode(summary),
                trace_id=trace_id,
                due_at=iso(self._clock.now() + first_look),
                continues=None if newest is None else newest.run.id,
            )
        )
        if record is None:
            raise WrongExpectedVersion(f"another process has made the run of trace {trace_id}")
        run = await self.open(record, trace_id)
        run.follow(newest)
        return run

    async def _drop_repeated(self, newest: RecordedRun, incoming: Incoming) -> None:
        """Drops what ended runs of the trace tell already: who did not hear the answer may send it again."""
        for run in (*await newest.earlier(self._store), *([newest] if newest.ended else ())):
            seen = [span for span in incoming.spans if run.has(span.head.span_id)]
            told: set[int] = set()
            for first in range(0, len(seen), KNOWN_AT_ONCE):
                some = seen[first : first + KNOWN_AT_ONCE]
                slice_ = _Slice(run.run.project_id)
                news = await self._news(run, some, slice_, Counter())
                known = await run.known(self._store, news)
                repeated = {
                    key for key, last in known.items() if merge(last.span, news[key].decoded()) is last.span
                }
                told.update([id(span) for span in some if span.head.span_id in repeated])
            incoming.spans[:] = [span for span in incoming.spans if id(span) not in told]
            measured.spans["repeated"] += len(told)

    async def _write(
        self,
        project: Project,
        incoming: Mapping[str, Incoming],
        runs: Mapping[str, RecordedRun],
        refused: Counter[str],
    ) -> Counter[str]:
        """Records what is new for each run, and stores it; returns how many were recorded and repeated."""
        counts: Counter[str] = Counter()
        slice_ = _Slice(project.id)
        dirty: dict[str, RecordedRun] = {}
        unchanged = []
        waits_s: dict[int, float] = {}
        pending_bytes = 0
        for trace_id, run in runs.items():
            news = await self._news(run, incoming[trace_id].spans, slice_, refused)
            at = iso(self._clock.now())
            known: Mapping[str, StepRecorded] = {}
            ids, head, is_put_off = list(news), run.head, False
            for index, (span_id, span) in enumerate(news.items()):
                if perf_counter() > slice_.until_s:
                    await slice_.rest()
                if not index % KNOWN_AT_ONCE:
                    try:
                        known = await run.known(self._store, ids[index : index + KNOWN_AT_ONCE])
                        if not run.head:
                            run.begin(at)
                    except RunUnreadable:
                        refused[UNREADABLE] += len(ids) - index
                        break
                    dirty[trace_id] = run
                before, last = run.pending_bytes, known.get(span_id)
                if run.is_full and run.leaves_open(span.head, last):
                    refused[TOO_MANY_OPEN] += 1
                    continue
                event = run.record_span(span, last, at)
                counts["repeated" if event is None else "recorded"] += 1
                if event is None and span.head.lease_s and span.head.end_time_unix_nano is None:
                    waits_s[run.run.no] = max(span.head.lease_s, waits_s.get(run.run.no, 0))
                    run.heard_at = at
                elif last is not None and last.span.lease_s:
                    is_put_off = True
                pending_bytes += run.pending_bytes - before
                if pending_bytes > APPEND_BYTES:
                    await self.store(dirty.values())
                    dirty, pending_bytes = {trace_id: run}, 0
            if run.head == head:
                unchanged.append(trace_id)
            elif head:
                wait = run.settles_after(self._settle)
                if wait is not None and (is_put_off or wait < self._settle):
                    waits_s[run.run.no] = wait.total_seconds()
        await self.store(dirty.values())
        for run_no, wait_s in waits_s.items():
            # Its sender is there, and is not missed before that; or nothing is open any more.
            due = self._clock.now() + timedelta(seconds=wait_s)
            await self._store.defer_recording(run_no, due_at=iso(due))
        # No append has found out whether these are still there.
        found = await self._store.recorded_traces(project.id, unchanged) if unchanged else {}
        for trace_id in unchanged:
            if found.get(trace_id) is None:
                refused[DELETED] += len(incoming[trace_id].spans)
                self.forget(runs[trace_id])
        return counts

    async def _news(
        self, run: RecordedRun, spans: Sequence[ReadSpan], slice_: "_Slice", refused: Counter[str]
    ) -> dict[str, EncodedSpan]:
        """What came of each span, with the content that the run keeps."""
        capture = self._make_capture(run.run.capture)
        news: dict[str, EncodedSpan] = {}
        kept: EncodedSpan | None
        for span in spans:
            if perf_counter() > slice_.until_s:
                await slice_.rest()
            span_id, kept = span.head.span_id, span
            try:
                if not capture.keeps_whole(len(span.state), is_harmless=span.is_harmless):
                    kept = span.redacted if capture.mode == "redacted" and span.redacted else None
                    kept = kept or encoded_span(await captured(span.decoded(), capture))
                if (former := news.get(span_id)) is not None:
                    kept = encoded_span(merge(former.decoded(), kept.decoded()))
            except DAMAGE:
                log.exception("a span could not be recorded")
                refused[UNUSABLE] += 1
            else:
                news[span_id] = kept
        return news


class _Slice:
    """Work on the event loop that lets others go on every few milliseconds."""

    def __init__(self, project_id: int) -> None:
        self._project_id = project_id
        self.until_s = perf_counter() + SLICE_S

    async def rest(self) -> None:
        await asyncio.sleep(0)
        async with paced("loop", self._project_id) as piece:
            piece.worked_s = SLICE_S
        self.until_s = perf_counter() + SLICE_S


async def _all(work: Iterable[Awaitable[Result]]) -> list[Result]:
    """The results of all of it, once it is done; raises what cannot be tried again before what can."""
    results: list[Result] = []
    failures = []
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, BaseException):
            failures.append(outcome)
        else:
            results.append(outcome)
    for failure in sorted(failures, key=lambda each: isinstance(each, WrongExpectedVersion)):
        raise failure
    return results
