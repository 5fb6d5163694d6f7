"""The process that checks flows, schemas and values that callers send.

Started as `python -m runglass.engine.checks.check_worker MEMORY_LIMIT`.

A schema of 550 bytes can keep a validator busy for ever, in native code that nothing interrupts; a large YAML
file or a large piece of code takes seconds and gigabytes. A check that is not proved to be small is done
here, within limits of time and memory, and may take the process down; `checks` starts it and replaces it.
"""

import sys
from typing import Any, Literal, assert_never

import msgspec

from runglass.engine.checks.request_check import check_request
from runglass.engine.checks.schema_example import smallest_object
from runglass.engine.checks.value_check import schema_problems
from runglass.engine.workers.limits import limit_cpu, work
from runglass.errors import APIError, FlowFileError, Problem, StepFailure
from runglass.flows.flow import Flow
from runglass.flows.parser import check_flow


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
    overrides: dict[str, Any]
    inputs: dict[str, Any] | None
    schema_limit_bytes: int


class CheckFlowFile(msgspec.Struct, frozen=True, tag=True):
    """A pushed file as a flow with warnings."""

    text: bytes
    own_providers: list[str]
    schema_limit_bytes: int
    flow_limit_bytes: int


Task = FitSchema | MakeSmallest | CheckRequest | CheckFlowFile


class CheckMessage(msgspec.Struct, frozen=True, array_like=True):
    """A task, and the seconds of the processor that it may take."""

    task: Task
    cpu_limit_s: float


class CheckFailure(msgspec.Struct, frozen=True, array_like=True):
    """An error of the task, to be raised where it was asked for."""

    kind: Literal["api", "step", "flow", "memory"]
    code: str = ""
    message: str = ""
    step_id: str | None = None
    details: dict[str, Any] = {}
    may_retry: bool = True
    problems: list[Problem] = []
    warnings: list[Problem] = []


class CheckReply(msgspec.Struct, frozen=True, array_like=True):
    """The result of a task, as JSON, or the reason why there is none."""

    value: msgspec.Raw = msgspec.Raw(b"null")
    failure: CheckFailure | None = None


class CheckedRequest(msgspec.Struct, frozen=True, array_like=True):
    """The answer to CheckRequest; no flow where it has not changed."""

    flow: Flow | None
    inputs: dict[str, Any] | None


class ReadFlow(msgspec.Struct, frozen=True, array_like=True):
    """The answer to CheckFlowFile."""

    flow: Flow
    warnings: list[Problem]


def perform(task: Task) -> Any:
    """The result of the task. Raises APIError, StepFailure, FlowFileError."""
    match task:
        case FitSchema():
            return schema_problems(task.value, task.schema)
        case MakeSmallest():
            return smallest_object(task.schema)
        case CheckRequest():
            flow, inputs = check_request(
                task.flow, task.overrides, task.inputs, schema_limit_bytes=task.schema_limit_bytes
            )
            return CheckedRequest(None if flow is task.flow else flow, inputs)
        case CheckFlowFile():
            checked = check_flow(
                task.text,
                own_providers=task.own_providers,
                limit_characters=task.flow_limit_bytes,
                schema_limit_bytes=task.schema_limit_bytes,
            )
            return ReadFlow(checked.flow, checked.warnings)
    assert_never(task)


_decoder = msgspec.json.Decoder(CheckMessage)


def answered(message: bytes) -> bytes:
    """The answer to an Ask, both as JSON."""
    limit_cpu(60.0)
    try:
        ask = _decoder.decode(message)
        limit_cpu(ask.cpu_limit_s)
        answer = CheckReply(msgspec.Raw(msgspec.json.encode(perform(ask.task))))
    except APIError as error:
        answer = CheckReply(
            failure=CheckFailure(
                "api", error.code, error.message, step_id=error.step_id, details=dict(error.details)
            )
        )
    except StepFailure as error:
        answer = CheckReply(
            failure=CheckFailure(
                "step", error.code, error.message, details=dict(error.details), may_retry=error.may_retry
            )
        )
    except FlowFileError as error:
        answer = CheckReply(failure=CheckFailure("flow", problems=error.problems, warnings=error.warnings))
    except (MemoryError, RecursionError):
        answer = CheckReply(failure=CheckFailure("memory"))
    return msgspec.json.encode(answer)


if __name__ == "__main__":
    work(answered, memory_limit_bytes=int(sys.argv[1]))
