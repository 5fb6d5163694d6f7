"""One question to a language model and its answer, as plain values.

Built-in and hosted models both speak in these. Nothing here knows a provider, a flow or a run.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, Protocol

import msgspec

from runglass.errors import StepFailure
from runglass.log.trace import TokenBreakdown


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The request of a step to a model.

    `model` is `echo`, or `PROVIDER:NAME` for a provider that pydantic-ai knows or that the settings give a
    base URL. `messages` are `{role: user | assistant | tool, content, toolCalls?, toolCallId?, name?}`; the
    text of the last user message is the prompt. `tools` and `tool_choice` have the OpenAI function format.
    Whoever asks ends the call after `timeout_s`.
    """

    model: str
    messages: list[dict[str, Any]]
    system: str | None = None
    settings: dict[str, Any] = {}
    output_schema: dict[str, Any] | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: Any = None
    timeout_s: float = 0.0


class ProviderResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a provider, be it of use or not, and its cost.

    `text` is all that the model said, `tool_calls` are `{id, type, function: {name, arguments}}` with
    `arguments` a JSON string. `tokens` is None where the provider told none that can be right, `cost_usd`
    where it is not known, for the reason `cost_unknown`; unknown is never 0. `cached_tokens` and
    `reasoning_tokens` are parts of `tokens`. `note` says in which other way than usual the model was asked,
    and why, and what cannot be right in the usage that the provider told.
    """

    model_used: str
    text: str = ""
    tool_calls: list[dict[str, Any]] = []
    tokens: TokenBreakdown | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: Decimal | None = None
    cost_unknown: Literal["no_usage", "no_price", "bad_usage"] | None = None
    finish_reason: str | None = None
    request_id: str | None = None
    streamed: bool = True
    note: str | None = None


class ModelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A response that can be used: `{"text": …}`, or the validated object of a request with `output_schema`.

    Where the response has tool calls, the model waits for their results, and `output` holds only the text
    that it said beside them.
    """

    output: dict[str, Any]
    response: ProviderResponse


class ModelCallFailed(StepFailure):
    """A request went out, and no whole answer came back.

    It costs nothing where the provider refused it before anything was generated; else it may be charged.
    `server_error` is the same for a status of 5xx with the same body and no `Retry-After`, else None.
    """

    def __init__(
        self, code: str, message: str, *, may_be_charged: bool, server_error: int | None = None, **more: Any
    ) -> None:
        super().__init__(code, message, **more)
        self.may_be_charged = may_be_charged
        self.server_error = server_error


class RequestObserver(Protocol):
    """Hears of every request that goes out for one answer: more than one where a server declines a form."""

    async def sent(self, read: Callable[[], dict[str, Any]], size_bytes: int) -> None:
        """A request goes out as soon as this returns.

        `read` gives it as `ModelCall.request` has it, as often as it is called; `size_bytes` of JSON are
        decoded for that.
        """

    async def declined(self, failure: ModelCallFailed) -> None:
        """The request before was declined for its form, and the model is asked in another one.

        Raises BudgetExceeded and StoreError.
        """


class AnswerRejected(StepFailure):
    """An answer came, and is to be paid for, but cannot be used."""

    def __init__(self, code: str, message: str, *, response: ProviderResponse, **more: Any) -> None:
        super().__init__(code, message, **more)
        self.response = response


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


def last_user_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of the user's last turn."""
    return next((text_of(turn) for turn in reversed(messages) if turn.get("role") == "user"), "")


def calls_in(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tool calls of an assistant message, in either spelling of the field."""
    calls: list[dict[str, Any]] = message.get("toolCalls") or message.get("tool_calls") or []
    return calls


def call_id_of(message: Mapping[str, Any]) -> str | None:
    """The id of the tool call that a tool message answers, in either spelling of the field."""
    call_id: str | None = message.get("toolCallId") or message.get("tool_call_id")
    return call_id


def both_spellings(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as callers get them: `tool_calls` beside `toolCalls`, `tool_call_id` beside `toolCallId`.

    There are clients that read the one, and clients that read the other.
    """
    spelled = []
    for message in messages:
        both = dict(message)
        for name, other in (("toolCalls", "tool_calls"), ("toolCallId", "tool_call_id")):
            if (value := message.get(name, message.get(other))) is not None:
                both |= {name: value, other: value}
        spelled.append(both)
    return spelled
