"""One question to a language model and its answer, as plain values.

Built-in and hosted models both speak in these. Nothing here knows a provider, a flow or a run.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import jsonschema_rs
import msgspec

from runglass.errors import StepFailure
from runglass.schemas import mistakes
from runglass.text import whole_text as whole_text
from runglass.trace import TokenBreakdown


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a step asks of a model.

    `model` is `echo`, or `PROVIDER:NAME` for a provider that pydantic-ai knows or that the settings give a
    base URL. `messages` are `{role: user | assistant | tool, content, toolCalls?, toolCallId?, name?}`; the
    text of the last user message is the prompt. `tools` and `tool_choice` have the OpenAI function format.
    `timeout_s` bounds the whole call, the last byte of the answer included.
    """

    model: str
    messages: list[dict[str, Any]]
    system: str | None = None
    settings: dict[str, Any] = {}
    output_schema: dict[str, Any] | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: Any = None
    timeout_s: float | None = None


class ModelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back: `{"text": …}`, or the validated object where the request had an `output_schema`.

    `tokens` is None where the provider reported none, `cost_usd` where no price is known; unknown is never 0.
    With `tool_calls` (`{id, type, function: {name, arguments}}`, `arguments` a JSON string) the model waits
    for their results, and `output` holds only the text it said beside them.
    """

    output: dict[str, Any]
    tokens: TokenBreakdown | None
    cost_usd: Decimal | None
    model_used: str
    tool_calls: list[dict[str, Any]] = []


class AnswerRejected(StepFailure):
    """An answer came, and is to be paid for, but cannot be used; carries what the attempt consumed."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        tokens: TokenBreakdown | None,
        cost_usd: Decimal | None,
        model_used: str,
        may_retry: bool = True,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(code, message, may_retry=may_retry, details=details)
        self.tokens = tokens
        self.cost_usd = cost_usd
        self.model_used = model_used


def text_of(message: Mapping[str, Any]) -> str:
    """The text of one message; "" where it has none. Raises StepFailure for content that is not text."""
    content = message.get("content")
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    raise StepFailure(
        "INVALID_INPUT",
        f"the content of a {message.get('role')!r} message must be text, not {type(content).__name__}",
        may_retry=False,
    )


def calls_in(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tool calls of an assistant message, in either spelling of the field."""
    calls: list[dict[str, Any]] = message.get("toolCalls") or message.get("tool_calls") or []
    return calls


def call_id_of(message: Mapping[str, Any]) -> str | None:
    """The id of the tool call that a tool message answers, in either spelling of the field."""
    call_id: str | None = message.get("toolCallId") or message.get("tool_call_id")
    return call_id


def schema_problems(value: Any, schema: dict[str, Any]) -> list[str]:
    """What is wrong with `value`, at most five located sentences; empty where `schema` accepts it.

    Raises StepFailure where `schema` itself is no JSON Schema. Never fetches a remote reference.
    """
    try:
        return mistakes(value, schema)
    except (ValueError, jsonschema_rs.ReferencingError) as problem:
        raise StepFailure(
            "INVALID_INPUT", f"not a usable JSON Schema: {str(problem)[:500]}", may_retry=False
        ) from problem
