"""What a provider answered, read and judged: tokens, cost, text, tool calls, and whether the step can use it.

Pure: takes the finished response, asks nobody. An answer that is no good still says what it cost.
"""

import json
from decimal import Decimal
from typing import Any

import msgspec
from genai_prices import calc_price
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.usage import RequestUsage

from runglass.engine.conversation import ANSWER_TOOL, arguments_of, wire_call
from runglass.engine.model_call import AnswerRejected, ModelAnswer, ModelRequest, schema_problems, whole_text
from runglass.engine.prices import Price, cost_of
from runglass.engine.provider_errors import EXCERPT
from runglass.trace import TokenBreakdown


def read_answer(request: ModelRequest, response: ModelResponse, *, price: Price | None) -> ModelAnswer:
    """The answer in `response`. Raises AnswerRejected where it broke off, is empty or misses the schema.

    `price` is the configured one; without it the provider's list price holds, where its address is known.
    """
    tokens = _tokens(response.usage)
    if price is not None:
        cost = _configured_cost(price, response.usage, tokens)
    else:
        cost = _list_cost(response, tokens)
    verdict = _Verdict(request, response, tokens, cost)
    verdict.check_ending()

    calls = [part for part in response.parts if isinstance(part, ToolCallPart)]
    asked_for = [wire_call(part) for part in calls if part.tool_name != ANSWER_TOOL]
    if asked_for:
        output: dict[str, Any] = {"text": verdict.text}
    elif request.output_schema is not None:
        written = next((arguments_of(part) for part in calls), verdict.text)
        output = verdict.checked_object(written, request.output_schema)
    elif verdict.text:
        output = {"text": verdict.text}
    else:
        raise verdict.rejected("INVALID_OUTPUT", f"gave an empty answer{verdict.cut_note}")
    return ModelAnswer(
        output=output, tokens=tokens, cost_usd=cost, model_used=verdict.model_used, tool_calls=asked_for
    )


class _Verdict:
    """Turns what is wrong with a response into an AnswerRejected that carries its tokens, cost and model."""

    def __init__(
        self,
        request: ModelRequest,
        response: ModelResponse,
        tokens: TokenBreakdown | None,
        cost: Decimal | None,
    ) -> None:
        provider, _, name = request.model.partition(":")
        text = "".join(part.content for part in response.parts if isinstance(part, TextPart))
        self.text = whole_text(text)
        self.model_used = whole_text(response.model_name or name)
        self.cut_note = (
            " (cut off at the token limit; raise `max_tokens`)" if response.finish_reason == "length" else ""
        )
        self._model = request.model
        self._provider = provider
        self._response = response
        self._tokens = tokens
        self._cost = cost

    def rejected(self, code: str, what: str, *, may_retry: bool = True, **details: Any) -> AnswerRejected:
        if self.text:
            details["answer"] = self.text[:EXCERPT]
        return AnswerRejected(
            code,
            f"model {self._model!r} {what}",
            tokens=self._tokens,
            cost_usd=self._cost,
            model_used=self.model_used,
            may_retry=may_retry,
            details={"provider": self._provider, "model": self._model, **details},
        )

    def check_ending(self) -> None:
        """Raises where the answer ended in another way than by the model's or the caller's will."""
        reason = self._response.finish_reason
        details = self._response.provider_details or {}
        if reason == "content_filter":
            why = whole_text(str(details.get("refusal") or "its content filter stepped in"))[:500]
            raise self.rejected("PROVIDER_ERROR", f"refused to answer: {why}", may_retry=False)
        if reason == "error":
            raise self.rejected("PROVIDER_UNAVAILABLE", "failed in the middle of its answer")
        # pydantic-ai reads a Chat Completions stream without a finish reason as finished; it was cut, though.
        # Only xAI's protocol has no reason to look at.
        assumed = reason == "stop" and self._response.provider_name != "xai"
        if "finish_reason" not in details and (reason is None or assumed):
            raise self.rejected("PROVIDER_UNAVAILABLE", "broke off in the middle of its answer")

    def checked_object(self, written: str, schema: dict[str, Any]) -> dict[str, Any]:
        value = _object_in(written)
        if value is None:
            raise self.rejected("INVALID_OUTPUT", f"gave an answer that is no JSON object{self.cut_note}")
        problems = schema_problems(value, schema)
        if problems:
            what = f"gave an answer against `output_schema`: {problems[0]}"
            raise self.rejected("INVALID_OUTPUT", what, problems=problems)
        return value


def _tokens(usage: RequestUsage) -> TokenBreakdown | None:
    if usage.unmeasured_requests or not (usage.input_tokens or usage.output_tokens):
        return None
    prompt, completion = usage.input_tokens, usage.output_tokens
    return TokenBreakdown(prompt=prompt, completion=completion, total=prompt + completion)


def _configured_cost(price: Price, usage: RequestUsage, tokens: TokenBreakdown | None) -> Decimal | None:
    if tokens is None:
        return None
    cached = usage.cache_read_tokens
    return cost_of(price, prompt=tokens.prompt, completion=tokens.completion, cached=cached)


def _list_cost(response: ModelResponse, tokens: TokenBreakdown | None) -> Decimal | None:
    if response.usage.cost is not None or tokens is None or not response.model_name:
        return response.usage.cost
    try:
        # By address alone: a provider's name says nothing about prices once its environment points elsewhere.
        return calc_price(
            response.usage,
            response.model_name,
            provider_api_url=response.provider_url,
            genai_request_timestamp=response.timestamp,
            price_context=response.provider_details,
        ).total_price
    except (LookupError, ValueError):
        return None


def _object_in(text: str) -> dict[str, Any] | None:
    """The JSON object that `text` is, or that it wraps in a Markdown fence or in prose."""
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        start = text.find("{")
        if start < 0:
            return None
        try:
            # Not strict: models write line breaks in strings as they are.
            decoder = json.JSONDecoder(parse_constant=_refuse_constant, strict=False)
            value, _ = decoder.raw_decode(text, start)
            # Unlike msgspec, it takes half a character that is written as an escape.
            value = json.loads(whole_text(json.dumps(value, ensure_ascii=False)))
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
