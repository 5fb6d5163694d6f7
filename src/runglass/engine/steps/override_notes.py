"""The input and the overrides of a call, told in the trace: names always, values where content is kept."""

import re
from typing import Any

import msgspec

from runglass.engine.capture.capture import Capture
from runglass.engine.capture.snapshots import preview
from runglass.engine.journal.run_spec import RunSpec, SegmentSpec
from runglass.engine.payload import Payload
from runglass.engine.steps.call_recorder import without_headers
from runglass.log.events import OverridesApplied, RunInput
from runglass.log.trace import RunSummary

MOST_NAMES = 100
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


async def run_input(run_id: str, spec: RunSpec, capture: Capture, *, failed: bool = False) -> RunInput | None:
    """The event that tells the run's input; None where the mode does not keep that.

    More modes keep it of a run that `failed`.
    """
    if not (capture.keeps_failures if failed else capture.keeps_snapshots):
        return None
    told: dict[str, Any] = {"inputs": spec.inputs if spec.given is None else spec.given}
    if spec.history:
        told["messages"] = spec.history
    if spec.attachments:
        told["attachments"] = msgspec.to_builtins(spec.attachments)
    payload = Payload(told)
    await capture.prepare_failed(payload)
    data, size, truncated = capture.failed_input(payload)
    assert data is not None
    members: dict[str, Any] = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    # In place of a value that cannot be redacted there is a note.
    inputs = members.get("inputs", data)
    return RunInput(
        execution_id=run_id,
        inputs=inputs,
        messages=members.get("messages"),
        attachments=members.get("attachments"),
        input_size_bytes=size,
        truncated=truncated,
        input_preview=preview(inputs),
    )


async def overrides_applied(
    run_id: str, segment_spec: SegmentSpec, capture: Capture, *, known: RunSummary
) -> OverridesApplied | None:
    """The event that tells the overrides of a call; None where it has none, or none that is not `known`.

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
    if not blocks and set(names[:MOST_NAMES]) <= set(known.overridden):
        return None
    return OverridesApplied(
        execution_id=run_id,
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
