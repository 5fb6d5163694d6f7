"""The content of a run as a whole: its input and overrides in the log, and its outputs where it fails.

Names of overrides are told always, values where the capture mode keeps content. A run that fails keeps its
input in every mode but `off`, and its outputs under `capture_failed`, though its mode keeps none: they are
read from the checkpoints. The append that ends a run deletes request and checkpoints, so that of one that
completes nothing but what its mode keeps is left.
"""

import logging
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from runglass.engine.capture.capture import Capture
from runglass.engine.capture.snapshots import preview
from runglass.engine.journal.checkpoints import path_text
from runglass.engine.journal.run_spec import RunSpec, SegmentSpec
from runglass.engine.journal.run_writer import RunWriter
from runglass.engine.payload import Payload
from runglass.engine.steps.call_recorder import without_headers
from runglass.engine.steps.run_context import EngineContext
from runglass.errors import RunUnreadable
from runglass.log.events import MOST_KEPT, ContentKept, KeptOutput, OverridesApplied, RunInput
from runglass.log.fold import StepChange
from runglass.log.trace import RunTotals, StepTrace
from runglass.store.base import decoding
from runglass.support.lazy_json import encoded

log = logging.getLogger(__name__)

MOST_BYTES = 4 << 20
"""So much the outputs take in all."""
_STEPS_PAGE_BYTES = 256 * 1024
MOST_NAMES = 100
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


def lacks_input(writer: RunWriter, capture: Capture, *, failed: bool = False) -> bool:
    """Whether the log still lacks the input that it is to have; more modes keep that of a failed run."""
    is_kept = capture.keeps_failures if failed else capture.keeps_snapshots
    return is_kept and writer.fold.summary.input_preview is None


async def run_input(
    writer: RunWriter, spec: RunSpec, capture: Capture, *, failed: bool = False
) -> RunInput | None:
    """The event that tells the run's input; None where the log does not lack it."""
    if not lacks_input(writer, capture, failed=failed):
        return None
    told: dict[str, Any] = {"inputs": spec.inputs if spec.given is None else spec.given}
    if spec.history:
        told["messages"] = spec.history
    if spec.attachments:
        told["attachments"] = msgspec.to_builtins(spec.attachments)
    payload = Payload(told)
    await capture.prepare(payload, failed=True)
    data, size, truncated = capture.kept(payload)
    assert data is not None
    members: dict[str, Any] = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    # In place of a value that cannot be redacted there is a note.
    inputs = members.get("inputs", data)
    return RunInput(
        execution_id=writer.run.id,
        inputs=inputs,
        messages=members.get("messages"),
        attachments=members.get("attachments"),
        input_size_bytes=size,
        truncated=truncated,
        input_preview=preview(inputs),
    )


async def overrides_applied(
    writer: RunWriter, segment_spec: SegmentSpec, capture: Capture
) -> OverridesApplied | None:
    """The event that tells the overrides of a call; None where it has none, or none that the log has not.

    A segment has the overrides of steps' fields only where they change its flow. Those of inputs come with
    every call; their values show in the inputs themselves.
    """
    segment = segment_spec.segment
    blocks, inputs = segment.block_overrides, dict(segment.step_inputs)
    if segment.input:
        first = segment_spec.spec.flow.steps[segment.first].id
        inputs[first] = {**segment.input, **inputs.get(first, {})}
    of_blocks = [f"{step}.{_shown_field(field)}" for step, fields in blocks.items() for field in fields]
    of_inputs = [f"{step}.input.{_shown(field)}" for step, fields in inputs.items() for field in fields]
    if capture.mode == "off":
        # What a caller calls its inputs is not told either.
        of_inputs = []
    names = list(dict.fromkeys([*of_blocks, *of_inputs]))
    if not blocks and set(names[:MOST_NAMES]) <= set(writer.fold.summary.overridden):
        return None
    return OverridesApplied(
        execution_id=writer.run.id,
        overridden=names if len(names) <= MOST_NAMES else [*names[:MOST_NAMES], "…"],
        block_overrides=await _captured(
            {step: _without_headers(fields) for step, fields in blocks.items()}, capture
        ),
        input_overrides=await _captured(inputs, capture),
    )


def _shown(field: str) -> str:
    """A name as it is; a text that is none stands for itself no more, since it may say anything."""
    return field if _NAME.fullmatch(field) else "…"


def _shown_field(field: str) -> str:
    """A step's field, or `settings.NAME`, whose name is the caller's own text."""
    container, dot, name = field.partition(".")
    return f"{container}.{_shown(name)}" if dot else field


def _without_headers(fields: dict[str, Any]) -> dict[str, Any]:
    settings, headers = fields.get("settings"), "settings.extra_headers"
    if isinstance(settings, dict):
        fields = fields | {"settings": without_headers(settings)}
    if headers in fields:
        fields = fields | {headers: without_headers({"extra_headers": fields[headers]})["extra_headers"]}
    return fields


async def _captured(overrides: dict[str, dict[str, Any]], capture: Capture) -> dict[str, Any] | None:
    if not overrides or not capture.keeps_snapshots:
        return None
    payload = Payload(overrides)
    await capture.prepare(payload)
    snapshot = capture.snapshot(payload).data
    captured: dict[str, Any] | None = None if snapshot is None else msgspec.json.decode(snapshot)
    return captured


class KeptOutputs(NamedTuple):
    """Outputs of attempts, and the states of these `before`, whose JSON has `replaced_bytes`."""

    outputs: list[KeptOutput]
    before: Sequence[StepChange]
    replaced_bytes: int

    def record(self, writer: RunWriter) -> None:
        """Adds the event, to travel with the one that follows."""
        for change in self.before:
            writer.fold.reopen(change)
        # Their rows are written anew, and count once.
        writer.log_bytes -= self.replaced_bytes
        completed = (writer.fold.summary.totals or RunTotals()).completed
        left_out = completed - len(self.outputs)
        writer.record_with_next(
            ContentKept(execution_id=writer.run.id, outputs=self.outputs, left_out=left_out)
        )


async def read_outputs(engine: EngineContext, writer: RunWriter, capture: Capture) -> KeptOutputs | None:
    """The outputs of steps that ended well, as `capture` keeps those of a run that fails.

    None where it keeps none, and where one cannot be read: what the run failed of is to be told. Else returns
    when all that was recorded is stored. Raises StoreError.
    """
    completed = (writer.fold.summary.totals or RunTotals()).completed
    if capture.of_failed is None or not completed:
        return None
    await writer.commit()
    try:
        return await _outputs(engine, writer, capture.of_failed)
    except RunUnreadable as error:
        log.error("run %s keeps no outputs of its steps: %s", writer.run.id, error)  # noqa: TRY400
        return None


async def _outputs(engine: EngineContext, writer: RunWriter, capture: Capture) -> KeptOutputs:
    """The newest first, while there is room."""
    store, run, ended = engine.store, writer.run, list[tuple[int, StepChange]]()
    after = max(0, writer.fold.last_position - MOST_KEPT)
    while rows := await store.trace_page(run.no, after=after, limit_bytes=_STEPS_PAGE_BYTES):
        after = rows[-1][0]
        for position, data in rows:
            with decoding(run.id):
                step = msgspec.json.decode(data, type=StepTrace)
            if step.status == "completed":
                ended.append((len(data), StepChange(position, step)))
    outputs: list[KeptOutput] = []
    before: list[StepChange] = []
    replaced_bytes, room = 0, MOST_BYTES
    for row_bytes, change in reversed(ended):
        step = change.step
        size = step.output_size_bytes or 0
        if min(size, capture.limit_bytes) > room:
            continue
        async with engine.limits.memory.working(size):
            checkpoint = await store.checkpoint(run.no, step.step_id, path_text(step.loop_path))
            # A caller who went back made void what came after.
            if checkpoint is None:
                continue
            with decoding(run.id):
                output = Payload.encoded(checkpoint)
                await capture.prepare(output)
                snapshot = capture.snapshot(output)
        kept = bytes(snapshot.data or b"")
        if len(kept) > room:
            continue
        room -= len(kept)
        replaced_bytes += row_bytes
        before.append(change)
        outputs.append(
            KeptOutput(
                step_id=step.step_id,
                loop_index=step.loop_index,
                loop_path=step.loop_path,
                attempt=step.attempt,
                output=encoded(kept),
                truncated=snapshot.truncated,
            )
        )
    return KeptOutputs(outputs[::-1], before, replaced_bytes)
