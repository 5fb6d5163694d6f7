"""What each kind of leaf step does in one attempt: input in, output out, nothing recorded here."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, assert_never

import msgspec

from runglass.clock import Clock
from runglass.engine import templates
from runglass.engine.llm import ModelRequest, Models
from runglass.engine.payload import Payload
from runglass.engine.sandbox import Sandbox, json_value
from runglass.errors import StepFailure
from runglass.flow import CodeStep, LeafStep, LlmStep, PassthroughStep, WaitStep
from runglass.trace import TokenBreakdown


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What steps work with, shared by all runs of a process."""

    sandbox: Sandbox
    models: Models
    clock: Clock


class Performed(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of an attempt that ended well. Tokens and cost are None where they are not known."""

    output: Payload
    tokens: TokenBreakdown | None = None
    cost_usd: Decimal | None = None
    model_used: str | None = None


async def perform(
    step: LeafStep, data: Payload, names: Mapping[str, Any], parts: Parts, on_text: Callable[[str], None]
) -> Performed:
    """One attempt of a leaf step. Raises StepFailure; `on_text` hears LLM text as it comes."""
    match step:
        case LlmStep():
            return await _ask_model(step, names, parts.models, on_text)
        case CodeStep():
            value = json_value(await parts.sandbox.run(step.code, names))
            if not isinstance(value, dict):
                message = f"the code of step {step.id!r} returned {_kind(value)}; it must return an object"
                raise StepFailure("INVALID_OUTPUT", message)
            return Performed(output=Payload(value))
        case WaitStep():
            await parts.clock.sleep(step.ms / 1000)
            return Performed(output=data)
        case PassthroughStep():
            return Performed(output=data)
    assert_never(step)


async def _ask_model(
    step: LlmStep, names: Mapping[str, Any], models: Models, on_text: Callable[[str], None]
) -> Performed:
    answer = await models.complete(
        ModelRequest(
            model=step.model,
            system=None if step.system is None else templates.render(step.system, names),
            messages=[{"role": "user", "content": _prompt(step, names)}],
            settings=step.settings,
            output_schema=step.output_schema,
        ),
        on_text,
    )
    return Performed(
        output=Payload(answer.output),
        tokens=answer.tokens,
        cost_usd=answer.cost_usd,
        model_used=answer.model_used,
    )


def _prompt(step: LlmStep, names: Mapping[str, Any]) -> str:
    if step.prompt is not None:
        return templates.render(step.prompt, names)
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
