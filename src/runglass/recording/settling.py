"""How recorded runs end: nobody says that a trace is over, so it is once nothing comes any more.

Of several processes on one store one at a time looks. A span that comes at the same moment is either before
the end, and the run is looked at again later, or behind it, and begins another run.
"""

import logging
from datetime import datetime, timedelta
from typing import Any

from msgspec import Raw, json

from runglass.engine.capture.snapshots import preview
from runglass.errors import PermanentStoreError, RunUnreadable, WrongExpectedVersion
from runglass.log.events import FlowCompleted, FlowFailed, KnownEvent, RunInput
from runglass.log.trace import StepTrace
from runglass.recording.recorded_run import RecordedRun
from runglass.recording.recordings import Recordings
from runglass.store.base import Store, summary_of
from runglass.store.records import RunRecord
from runglass.support.clock import Clock, iso, iso_ms
from runglass.support.lazy_json import Json, json_bytes
from runglass.support.logs import FailureLog
from runglass.wire.query import created_ms

log = logging.getLogger(__name__)

AT_ONCE = 100
INTERVAL_S = (0.5, 2.0)
"""Runs are looked after a quarter of the time of `settle` apart, but within these bounds."""
SPARE_S = 30.0
"""So long after its turn another process waits before it does what one that is gone has done."""
WRITER_LOST, STEP_FAILED = "WRITER_LOST", "STEP_FAILED"


class Settling:
    """Ends recorded runs: `settle` after the last span where all have ended, `idle` after it in any case.

    Where each open span has a lease, the longest of them takes the place of `idle`. Where the senders have
    said for how long more may come, that takes the place of a longer `settle`.
    """

    def __init__(
        self, *, store: Store, recordings: Recordings, clock: Clock, settle: timedelta, idle: timedelta
    ) -> None:
        self._store = store
        self._recordings = recordings
        self._clock = clock
        self._settle = settle
        self._idle = idle
        self._since = clock.now()
        """Before that nobody may have been there to hear of a sender."""

    async def run_forever(self) -> None:
        """Looks at what is due, again and again until it is cancelled. A store that fails is tried again."""
        shortest_s, longest_s = INTERVAL_S
        interval_s = min(max(self._settle.total_seconds() / 4, shortest_s), longest_s)
        failures = FailureLog(log, "ending recorded runs failed")
        while True:
            with failures:
                if await self._store.claim_maintenance("recordings", for_s=interval_s + SPARE_S):
                    await self.settle()
            await self._clock.sleep(interval_s)

    async def settle(self) -> None:
        """Ends all runs that are due and have ended, and says of the others when to look again.

        Raises StoreError.
        """
        is_last = False
        while not is_last:
            due = await self._store.due_recordings(now=iso(self._clock.now()), limit=AT_ONCE)
            is_last = len(due) < AT_ONCE
            for run in due:
                try:
                    await self.end_if_due(run)
                except WrongExpectedVersion:
                    # Another process has written to it: it is still due, and is looked at in the next turn.
                    is_last = True
                except (RunUnreadable, PermanentStoreError) as error:
                    about = {"project_id": run.project_id}
                    log.error("recorded run %s cannot be ended: %s", run.id, error, extra=about)  # noqa: TRY400
                    await self._defer(run, self._clock.now() + self._idle)

    async def _defer(self, run: RunRecord, until: datetime) -> None:
        # Not for no time at all: who looks would find it again at once.
        until = max(until, self._clock.now() + timedelta(seconds=1))
        await self._store.defer_recording(run.no, due_at=iso(until))

    async def end_if_due(self, record: RunRecord) -> None:
        """Ends the run if its time has come, else says when to look at it again.

        Raises RunUnreadable, StoreError, and WrongExpectedVersion where another process has written to it.
        """
        told = summary_of(record).recording
        if told is None:
            raise RunUnreadable(record.id, "its summary has no trace id")
        async with self._recordings.locked(record.project_id, [told.trace_id]):
            run = await self._recordings.open(record, told.trace_id)
            if run.ended:
                return
            now = self._clock.now()
            if self._recordings.is_receiving(record.project_id, told.trace_id):
                return await self._defer(record, now)
            # Without an event its first spans were not stored, and their sender may come again.
            settle = run.settles_after(self._settle)
            last = datetime.fromisoformat(run.last_at or iso_ms(created_ms(run.run.id)))
            wait = self._idle if settle is None else settle
            if settle is None and (lease := await self._lease(run)) is not None:
                # What its sender repeats is not in the log: it puts off when the run is due.
                heard = datetime.fromisoformat(run.heard_at) if run.heard_at else last
                last, wait = max(last, heard, self._since), lease
            if now - last >= wait:
                # Open steps went on until their sender fell silent, and not while it was waited for.
                await self._end(run, iso(max(last, now - wait) if settle is None else now))
            else:
                latest = last + wait
                await self._defer(record, min(now + self._settle, latest) if settle is None else latest)

    async def _lease(self, run: RecordedRun) -> timedelta | None:
        """The longest lease of its open spans; None where one of them has none."""
        open_ids = [step.span_id for _, step in run.fold.open_steps if step.span_id is not None]
        known = await run.known(self._store, open_ids)
        leases = [event.span.lease_s for event in known.values()]
        told = [lease_s for lease_s in leases if lease_s is not None]
        return timedelta(seconds=max(told)) if told and len(told) == len(leases) else None

    async def _end(self, run: RecordedRun, at: str) -> None:
        if not run.head:
            run.begin(at)
        recording, tree = run.fold.summary.recording, run.fold.tree
        assert recording is not None
        assert tree is not None
        failed_id = tree.failed_top()
        wanted = [each for each in (recording.entry_span_id, failed_id) if each is not None]
        known = await run.known(self._store, wanted)
        entry, failed = known.get(recording.entry_span_id or ""), known.get(failed_id or "")
        lost = min((step for _, step in run.fold.open_steps), key=_began, default=None)
        run_id, result = run.run.id, None
        if entry is not None:
            given, result = json_bytes(entry.span, "input"), json_bytes(entry.span, "output")
            if entry.span.model_calls:
                # A trace of one call, whose span has nothing beside it.
                [call] = entry.span.model_calls
                given, result = given or json_bytes(call, "request"), result or json_bytes(call, "response")
            if given is not None:
                read = RunInput(
                    execution_id=run_id,
                    inputs=given,
                    input_size_bytes=entry.span.input_size_bytes,
                    truncated=entry.span.truncated,
                    input_preview=_preview(given),
                )
                run.record(read, at=at)
        if lost is not None or not run.fold.last_position:
            error: Any = {"code": WRITER_LOST, "message": "its sender fell silent before it had ended"}
            step_id = None if lost is None else lost.step_id
            ended: KnownEvent = FlowFailed(execution_id=run_id, run_id=run_id, error=error, step_id=step_id)
        elif failed is not None:
            error = {"code": STEP_FAILED, **(failed.span.error or {})}
            ended = FlowFailed(execution_id=run_id, run_id=run_id, error=error, step_id=failed.step_id)
        else:
            ended = FlowCompleted(
                execution_id=run_id,
                run_id=run_id,
                step_id=None if entry is None else entry.step_id,
                result=result,
                truncated=entry is not None and entry.span.truncated,
                result_preview=_preview(result),
            )
        run.record(ended, at=at)
        try:
            await self._recordings.store([run])
        except BaseException:
            self._recordings.forget(run)
            raise


def _began(step: StepTrace) -> tuple[int, str]:
    return int(step.start_time_unix_nano or 0), step.span_id or ""


def _preview(data: Json) -> str | None:
    # Raw JSON, as `json_bytes` gives it.
    raw: Any = data
    value = {} if raw is None else json.decode(raw)
    messages = value.get("messages") if isinstance(value, dict) else None
    if isinstance(messages, list):
        # What was said last is what a list is read for.
        said = [each.get("content") for each in messages if isinstance(each, dict)]
        texts = [text for text in said if isinstance(text, str)]
        raw = Raw(json.encode({"content": texts[-1]})) if texts else raw
    elif isinstance(value, dict) and isinstance(content := value.get("content"), str):
        raw = Raw(json.encode({"content": content}))
    return preview(raw)
