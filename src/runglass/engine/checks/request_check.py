"""A caller's request held against the flow that it is for: overrides put in, inputs filled in and judged.

Pure, for any process: the server's where the work is small, a worker's where it may not be.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from runglass.errors import api_error
from runglass.flows.arguments import apply_overrides, check_inputs, with_defaults
from runglass.flows.flow import Flow, LlmStep
from runglass.flows.schemas.schema import Unproved, prove_quick

_QUICK_BYTES = 16 * 1024
_QUICK_STEPS = 16
_QUICK_CODE = 4 * 1024
_QUICK_SCHEMA = 2 * 1024
"""Overrides up to these sizes are checked in some milliseconds: Python's parser is the slowest by far."""


def check_request(
    flow: Flow,
    overrides: Mapping[str, Mapping[str, Any]],
    inputs: dict[str, Any] | None,
    *,
    schema_limit_bytes: int,
    quick_bytes: int | None = None,
) -> tuple[Flow, dict[str, Any] | None]:
    """The flow with the overrides in it, and the inputs with their defaults. Raises APIError.

    With `quick_bytes`, the size of the whole request, raises Unproved where it may take longer than some
    milliseconds.
    """
    if overrides:
        if quick_bytes is not None:
            _prove_small(overrides)
        flow = apply_overrides(flow, overrides, schema_limit_bytes=schema_limit_bytes)
    if inputs is None:
        return flow, None
    if quick_bytes is not None and flow.inputs is not None:
        prove_quick(flow.inputs, size_bytes=quick_bytes)
    inputs = with_defaults(flow, inputs)
    require_message(flow, inputs)
    check_inputs(flow, inputs, quick_bytes=quick_bytes)
    return flow, inputs


def require_message(flow: Flow, inputs: Mapping[str, Any]) -> None:
    """Raises MISSING_MESSAGE where a run cannot do without a `message` and its inputs have none."""
    if "message" in inputs:
        return
    if flow.inputs is not None and "message" in flow.inputs.get("required", ()):
        message = f"flow {flow.slug!r} needs a `message`: send `message`, `messages` or `parameters.message`"
        raise api_error("MISSING_MESSAGE", message)
    first = flow.steps[0]
    if isinstance(first, LlmStep) and first.prompt is None and not first.input:
        message = f"step {first.id!r} has no `prompt`: the call must bring a `message`"
        raise api_error("MISSING_MESSAGE", message, step_id=first.id)


def _prove_small(overrides: Mapping[str, Any]) -> None:
    if len(overrides) > _QUICK_STEPS or len(msgspec.json.encode(overrides)) > _QUICK_BYTES:
        raise Unproved
    for fields in overrides.values():
        # What is no object of fields is refused before anything of it is read.
        given = fields if isinstance(fields, Mapping) else {}
        schema = given.get("output_schema")
        if len(str(given.get("code", ""))) > _QUICK_CODE:
            raise Unproved
        if schema is not None:
            if len(msgspec.json.encode(schema)) > _QUICK_SCHEMA:
                raise Unproved
            prove_quick(schema)
