"""What is read of a run: its summary, with input and result or as a list has it, its steps, its flow."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import msgspec

from runglass.errors import RunUnreadable
from runglass.flows.flow import Flow
from runglass.limits.offload import offload
from runglass.limits.pace import paced_read
from runglass.log.events import RunInput, decode_event, event_type_of
from runglass.log.fold import DAMAGE, content_of_run
from runglass.log.trace import RunSummary, StepTrace
from runglass.runtime.runtime import decode_stored_flow
from runglass.server.http.response_stream import PART_BYTES, Pages
from runglass.store.base import decoding
from runglass.store.catalog import Catalog
from runglass.store.records import OpenedTrace, RunListing, RunRecord
from runglass.store.run_logs import RunLog
from runglass.support.lazy_json import json_bytes

log = logging.getLogger(__name__)

Result = TypeVar("Result")

INLINE_BYTES = 64 * 1024
"""Up to this size rows are read on the event loop: that takes less than a millisecond."""

_any_json = msgspec.json.Decoder(msgspec.Raw)
_summary = msgspec.json.Decoder(RunSummary)
_step = msgspec.json.Decoder(StepTrace)


async def with_content(store: RunLog, run: RunRecord) -> OpenedTrace:
    """The run and those of its events, and the first steps where its entry is among them.

    Raises StoreError, RunPurged.
    """
    if run.is_recorded and not run.ended and run.capture != "off":
        return OpenedTrace(run, await store.trace_page(run.no, after=0, limit_bytes=PART_BYTES))
    content = []
    for seq in run.content_seqs:
        if 0 < seq <= run.head:
            content += [data for _, data in await store.events(run.no, after=seq - 1, limit_bytes=1)]
    return OpenedTrace(run, [], content)


def whole_summary(opened: OpenedTrace) -> bytes:
    """The run's `flowRun` in a trace: its summary with `input` and `result`. Raises RunUnreadable."""
    summary = opened.run.summary
    with decoding(opened.run.id):
        _any_json.decode(summary)
        content: dict[str, Any] = {}
        for data in opened.content:
            if event_type_of(data) in ("run_input", "flow_completed"):
                content |= content_of_run(decode_event(data))
        if opened.run.is_recorded and not opened.run.ended:
            content = _entry_input(opened)
        members = b"".join([b',"%b":%b' % (name.encode(), value) for name, value in content.items()])
        return summary[:-1] + members + b"}" if members else summary


def _entry_input(opened: OpenedTrace) -> dict[str, Any]:
    """The input of a recorded run that goes on, where its entry is among the first steps."""
    recording = _summary.decode(opened.run.summary).recording
    entry = None if recording is None else recording.entry_span_id
    for _, data in opened.steps if entry else ():
        if entry and entry.encode() in data and (step := _step.decode(data)).span_id == entry:
            given: Any = json_bytes(step, "input_context")
            given = given or next((json_bytes(call, "request") for call in step.model_calls), None)
            return {"input": b'{"inputs":%b}' % bytes(given)} if given else {}
    return {}


def input_of(opened: OpenedTrace) -> RunInput | None:
    """The event with the input of the run, None where it has none. Raises RunUnreadable."""
    with decoding(opened.run.id):
        events = [decode_event(data) for data in opened.content if event_type_of(data) == "run_input"]
        return next((event for event in events if isinstance(event, RunInput)), None)


def checked_objects(run: RunRecord, rows: list[bytes]) -> list[bytes]:
    """The rows. Raises RunUnreadable for one that is no JSON object: it would spoil the whole answer.

    Only the first and last bytes are checked, as parsing each would double the time of the read.
    """
    for data in rows:
        if not (data.startswith(b"{") and data.endswith(b"}")):
            raise RunUnreadable(run.id, f"no JSON object begins with {data[:20]!r}")
    return rows


async def step_pages(store: RunLog, run: RunRecord, *, after: int = 0) -> Pages:
    """The steps of the run's trace behind that position, as JSON. Raises StoreError, RunUnreadable."""
    size = PART_BYTES
    while size >= PART_BYTES:
        page = partial(store.trace_page, run.no, after=after, limit_bytes=PART_BYTES)
        if not (rows := await paced_read(run.project_id, page, size_bytes=run.log_bytes)):
            return
        after, found = rows[-1][0], [data for _, data in rows]
        size = sum(map(len, found))
        yield checked_objects(run, found)


async def read_flow(store: Catalog, run: RunRecord, read: Callable[[Flow], Result]) -> Result | None:
    """What `read` makes of the flow that the run is of, of a draft as it is now; None where it is gone."""
    source = await store.flow_source(run.flow_id, run.version)
    if source is None:
        return None
    return await offload(
        lambda: read(decode_stored_flow(source)), size_bytes=len(source), quick_bytes=INLINE_BYTES
    )


def summary_of(run: RunListing) -> RunSummary:
    """The run's summary, or what its columns say where that cannot be read: it must not hide other runs."""
    try:
        return _summary.decode(run.summary)
    except DAMAGE as error:
        log.error("the summary of run %s cannot be read: %s", run.id, error)  # noqa: TRY400
    return RunSummary(
        id=run.id,
        flow_id=run.flow_id,
        status=run.status,
        trigger_type=run.trigger_type,
        completed_at=run.ended_at,
        duration_ms=run.duration_ms,
        flow_slug=run.flow_slug,
        version=run.version,
        session_id=run.session_id,
        unreadable=True,
    )
