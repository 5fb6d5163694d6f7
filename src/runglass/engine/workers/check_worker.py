"""What a worker process does to check flows, schemas and values that callers send.

A schema of 550 bytes can keep a validator busy for ever, in native code that nothing interrupts; a large YAML
file or a large piece of code takes seconds and gigabytes. A check that is not proved to be small is done
here, within limits of time and memory, and may take the process down; `checks` starts it and replaces it.
The check of a request is pure, and the server does it itself where the work is small.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, assert_never

import msgspec

from runglass.engine.workers.schema_example import schema_problems, smallest_object
from runglass.errors import api_error
from runglass.flows.arguments import apply_overrides, check_inputs, with_defaults
from runglass.flows.flow import Flow, LlmStep
from runglass.flows.parser import check_flow
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


def _prove_small(overrides: Mapping[str, Mapping[str, Any]]) -> None:
    if len(overrides) > _QUICK_STEPS or len(msgspec.json.encode(overrides)) > _QUICK_BYTES:
        raise Unproved
    for fields in overrides.values():
        if len(str(fields.get("code", ""))) > _QUICK_CODE:
            raise Unproved
        if (schema := fields.get("output_schema")) is not None:
            if len(msgspec.json.encode(schema)) > _QUICK_SCHEMA:
                raise Unproved
            prove_quick(schema)


class FitSchema(msgspec.Struct, frozen=True, tag=True):
    """Whether a value fits a schema; the answer is a list of sentences."""

    value: Any
    schema: dict[str, Any]


class MakeSmallest(msgspec.Struct, frozen=True, tag=True):
    """A small object that a schema accepts."""

    schema: dict[str, Any]


class CheckRequest(msgspec.Struct, frozen=True, tag=True):
    """A flow with the overrides of a call in it, and inputs, if there are any, that fit it."""

    flow: Flow
    overrides: dict[str, dict[str, Any]]
    inputs: dict[str, Any] | None
    schema_limit_bytes: int


class CheckFlowFile(msgspec.Struct, frozen=True, tag=True):
    """A pushed file as a flow with warnings."""

    text: bytes
    own_providers: list[str]
    schema_limit_bytes: int
    flow_limit_bytes: int


class CheckedRequest(NamedTuple):
    """The answer to CheckRequest; no flow where it has not changed."""

    flow: Flow | None
    inputs: dict[str, Any] | None


Task = FitSchema | MakeSmallest | CheckRequest | CheckFlowFile


_decoder: msgspec.json.Decoder[Task] = msgspec.json.Decoder(Task)


def answered(message: bytes) -> bytes:
    """The result of a Task, both as JSON. Raises APIError, StepFailure, FlowFileError."""
    result: Any
    match task := _decoder.decode(message):
        case FitSchema():
            result = schema_problems(task.value, task.schema)
        case MakeSmallest():
            result = smallest_object(task.schema)
        case CheckRequest():
            flow, inputs = check_request(
                task.flow, task.overrides, task.inputs, schema_limit_bytes=task.schema_limit_bytes
            )
            result = CheckedRequest(None if flow is task.flow else flow, inputs)
        case CheckFlowFile():
            result = check_flow(
                task.text,
                own_providers=task.own_providers,
                limit_characters=task.flow_limit_bytes,
                schema_limit_bytes=task.schema_limit_bytes,
            )
        case _:
            assert_never(task)
    return msgspec.json.encode(result)
