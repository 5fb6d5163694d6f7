"""A run of a session as JSON: its own fields, and the latest attempt of each of its steps.

Snapshots go from the store into the answer as the bytes that they are.
"""

import logging
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any

import msgspec

from runglass.errors import RunUnreadable
from runglass.flows.flow import Flow, LeafStep, step_count, within
from runglass.limits.offload import offload
from runglass.log.events import FlowCancelled, FlowCompleted, FlowFailed
from runglass.log.fold import milliseconds_between
from runglass.log.trace import RunSummary, StepTrace
from runglass.server.calls.run_failure import end_of, failure_at
from runglass.server.services.run_content import INLINE_BYTES, read_flow, step_pages
from runglass.store.base import decoding, summary_of
from runglass.store.catalog import Catalog
from runglass.store.records import RunRecord
from runglass.store.run_logs import RunLog
from runglass.support.lazy_json import Json, encoded, json_bytes
from runglass.wire.session import SessionStep

log = logging.getLogger(__name__)

_TRIGGERS = {"step": "step", "job": "job", "recorded": "recorded"}
_SNAPSHOTS = ("input_snapshot", "output_snapshot", "error_snapshot")
_steps = msgspec.json.Decoder(StepTrace)


class FlowShape:
    """The facts about a flow's steps by which the last step of a run is found."""

    def __init__(self, flow: Flow) -> None:
        last = flow.steps[-1]
        self.step_count = step_count(flow)
        self.ids = {step.id for step in flow.steps for step in within(step)}
        self.inner = set() if isinstance(last, LeafStep) else {step.id for step in within(last)}
        self.container = last.id


class SessionFlows:
    """The flows of the runs of a session, each looked up and walked once."""

    def __init__(self, store: Catalog) -> None:
        self._store = store
        self._found: dict[tuple[str, int], tuple[str, FlowShape | None]] = {}

    async def of(self, run: RunRecord) -> tuple[str, FlowShape | None]:
        """The slug of the run's flow, and the shape of its version."""
        key = (run.flow_id, run.version)
        if key not in self._found:
            record = await self._store.flow(run.flow_id)
            shape = await read_flow(self._store, run, FlowShape)
            self._found[key] = ("" if record is None else record.slug), shape
        return self._found[key]


async def session_run(
    store: RunLog, run: RunRecord, slug: str, shape: FlowShape | None
) -> AsyncGenerator[bytes, None]:
    """A run of a session as JSON, piece by piece; only the fields of its row where the run cannot be read."""
    try:
        summary = summary_of(run)
        end, is_readable = await end_of(store, run), True
    except RunUnreadable as error:
        # A broken run must not hide the others.
        log.error("%s", error)  # noqa: TRY400
        summary = RunSummary(id=run.id, flow_id=run.flow_id, status=run.status)
        end, is_readable = None, False
    head = {
        "executionId": run.id,
        "flowId": run.flow_id,
        "slug": slug,
        "triggerType": _TRIGGERS.get(run.trigger_type, "execute"),
        "status": run.status,
        "startedAt": summary.started_at,
        "completedAt": summary.completed_at,
        "traceCaptureMode": run.capture,
        "errorAtStep": end.step_id if isinstance(end, FlowFailed) else None,
    }
    told = {name: value for name, value in head.items() if value is not None}
    yield msgspec.json.encode(told)[:-1] + b',"steps":['
    # A draft may have changed since the run; its shape serves as long as it has the run's steps.
    is_same = shape is not None and shape.step_count == summary.step_count
    steps = SessionSteps(run, end, shape if is_same else None)
    separator = b""
    if is_readable:
        try:
            async for rows in step_pages(store, run):
                read, size = partial(steps.read, rows), sum(map(len, rows))
                with decoding(run.id):
                    shown = await offload(read, size_bytes=size, quick_bytes=INLINE_BYTES)
                yield separator + shown
                separator = b","
        except RunUnreadable as error:
            log.error("%s", error)  # noqa: TRY400
            is_readable = False
    last = steps.last() if is_readable else None
    if last is not None:
        yield separator + steps.encode(last)
    yield b'],"snapshotsAvailable":%b}' % (b"true" if steps.has_snapshots else b"false")


class SessionSteps:
    """The steps of one run, read in order; `shape` is that of its flow, or None where that is gone."""

    def __init__(
        self, run: RunRecord, end: FlowCompleted | FlowFailed | FlowCancelled | None, shape: FlowShape | None
    ) -> None:
        self.has_snapshots = False
        self._end = end
        self._ids = set() if shape is None else shape.ids
        self._inner = set() if shape is None else shape.inner
        self._container = None if shape is None else shape.container
        self._seen: set[str] = set()
        self._since: str | None = None
        self._error: dict[str, Any] | None = None
        self._caller_error: Json = None
        if isinstance(end, FlowFailed | FlowCancelled):
            failure = failure_at(end)
            self._error = failure.error
            self._caller_error = encoded(msgspec.json.encode(failure.told(run)))

    def read(self, rows: Sequence[bytes]) -> bytes:
        """The rows as members of a JSON array."""
        return b",".join([self._read(_steps.decode(row)) for row in rows])

    def _read(self, step: StepTrace) -> bytes:
        self._seen.add(step.step_id)
        if self._since is None and step.step_id in self._inner:
            self._since = step.started_at
        error = json_bytes(step, "error_context")
        if self._error is not None and error is not None and step.error_context == self._error:
            error = self._caller_error
        return self.encode(
            SessionStep(
                step_id=step.step_id,
                attempt=step.attempt,
                loop_index=step.loop_index,
                status=step.status,
                started_at=step.started_at,
                completed_at=step.completed_at,
                duration_ms=step.duration_ms,
                input_snapshot=json_bytes(step, "input_context"),
                output_snapshot=json_bytes(step, "output_context"),
                error_snapshot=error,
                truncated=step.truncated,
            )
        )

    def encode(self, step: SessionStep) -> bytes:
        """The step as JSON."""
        if not self.has_snapshots:
            self.has_snapshots = any(json_bytes(step, name) is not None for name in _SNAPSHOTS)
        return msgspec.json.encode(step)

    def last(self) -> SessionStep | None:
        """The container in which the run ended, with its result or error; None where a step has them."""
        end = self._end
        container = self._container if self._seen <= self._ids else None
        if isinstance(end, FlowCompleted):
            container = end.step_id or container
        elif not self._seen & self._inner:
            container = None
        if end is None or container is None or container in self._seen:
            return None
        return SessionStep(
            step_id=container,
            attempt=1,
            status="completed" if isinstance(end, FlowCompleted) else "failed",
            started_at=self._since,
            completed_at=end.at,
            duration_ms=None if self._since is None else milliseconds_between(self._since, end.at),
            output_snapshot=json_bytes(end, "result") if isinstance(end, FlowCompleted) else None,
            error_snapshot=self._caller_error,
            truncated=isinstance(end, FlowCompleted) and end.truncated,
        )
