"""The work of each kind of leaf step in one attempt: input in, output out, nothing recorded here."""

from collections.abc import Mapping
from typing import Any, assert_never

import msgspec

from runglass.engine.journal.run_spec import ToolOffer
from runglass.engine.models.gateway import ModelAnswer, ModelRequest
from runglass.engine.models.model_types import text_of
from runglass.engine.payload import Payload
from runglass.engine.steps.run_context import RunContext
from runglass.errors import StepFailure
from runglass.flows.flow import CodeStep, LlmStep, PassthroughStep, PlainStep, WaitStep
from runglass.wire.run_api import Attachment


class LlmContext(msgspec.Struct, frozen=True, kw_only=True):
    """The context of an llm step beside its fields: turns before its prompt, tools, earlier turns."""

    history: list[dict[str, Any]] = []
    attachments: list[Attachment] = []
    offer: ToolOffer | None = None
    messages: list[dict[str, Any]] = []


class AttemptResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of an attempt that ended well.

    With `calls` the step is not done: it waits for their results, to be added to `messages`.
    """

    output: Payload
    calls: list[dict[str, Any]] = []
    messages: list[dict[str, Any]] = []


async def perform(
    step: PlainStep,
    data: Payload,
    names: Mapping[str, Any],
    context: RunContext,
    *,
    waited_s: float = 0.0,
) -> AttemptResult:
    """One attempt of a leaf step that asks no model. Raises StepFailure.

    `waited_s` is how long a wait step has waited in attempts that were cut off.
    """
    match step:
        case CodeStep():
            value = await context.dependencies.sandbox.run(step.code, names, project_id=context.project_id)
            if not isinstance(value, dict):
                message = f"the code of step {step.id!r} returned {_kind(value)}; it must return an object"
                raise StepFailure("INVALID_OUTPUT", message)
            return AttemptResult(output=Payload(value))
        case WaitStep():
            await context.dependencies.clock.sleep(max(0.0, step.ms / 1000 - waited_s))
            return AttemptResult(output=data)
        case PassthroughStep():
            return AttemptResult(output=data)
    assert_never(step)


async def model_request(
    step: LlmStep, names: Mapping[str, Any], context: RunContext, llm_context: LlmContext
) -> ModelRequest:
    """The request of an llm step to its model in this turn. Raises StepFailure."""
    return ModelRequest(
        model=step.model,
        system=None if step.system is None else await _rendered(step.system, names, context),
        messages=llm_context.messages
        or [*llm_context.history, await _user_turn(step, names, context, llm_context.attachments)],
        settings=step.settings,
        output_schema=step.output_schema,
        tools=llm_context.offer.tools if llm_context.offer else [],
        tool_choice=llm_context.offer.choice if llm_context.offer else None,
    )


def rendered_prompt(request: ModelRequest) -> str:
    """The text of the user's last turn in a request."""
    users = (text_of(turn) for turn in reversed(request.messages) if turn.get("role") == "user")
    return next(users, "")


def performed(request: ModelRequest, answer: ModelAnswer) -> AttemptResult:
    """The result of an attempt whose model has answered: its output, or the tool calls that it waits for."""
    response = answer.response
    asked = {
        "role": "assistant",
        "content": answer.output.get("text") or None,
        "toolCalls": response.tool_calls,
    }
    return AttemptResult(
        output=Payload(answer.output),
        calls=response.tool_calls,
        messages=[*request.messages, asked] if response.tool_calls else [],
    )


async def _user_turn(
    step: LlmStep, names: Mapping[str, Any], context: RunContext, attachments: list[Attachment]
) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": "user", "content": await _prompt(step, names, context)}
    return turn | {"attachments": msgspec.to_builtins(attachments)} if attachments else turn


async def _rendered(template: str, names: Mapping[str, Any], context: RunContext) -> str:
    return await context.dependencies.templates.render(template, names, project_id=context.project_id)


async def _prompt(step: LlmStep, names: Mapping[str, Any], context: RunContext) -> str:
    if step.prompt is not None:
        return await _rendered(step.prompt, names, context)
    message = names.get("message", names["initial"].get("message"))
    if not isinstance(message, str):
        raise StepFailure(
            "TEMPLATE_ERROR",
            f"step {step.id!r} has no `prompt` and the run has no text `message`; give one of the two",
            may_retry=False,
        )
    return message


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
