"""The answer of a provider, read and judged: tokens, cost, text, tool calls, and whether the step can use it.

Pure: takes the finished response and does no I/O. An answer that is of no use still has its cost.
"""

import json
from decimal import Decimal
from typing import Any, Literal

import msgspec
from genai_prices import calc_price
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.usage import RequestUsage

from runglass.engine.checks.checks import Checks
from runglass.engine.models.message_mapping import ANSWER_TOOL, arguments_of, wire_call
from runglass.engine.models.model_types import AnswerRejected, ModelAnswer, ModelRequest, ProviderResponse
from runglass.engine.models.pricing import Price, cost_of
from runglass.engine.models.provider_errors import EXCERPT, address_of
from runglass.errors import StepFailure
from runglass.safe_text import replace_surrogates
from runglass.trace import TokenBreakdown

_LONGEST_ID = 200


async def read_answer(
    request: ModelRequest,
    given: ModelResponse,
    *,
    checks: Checks,
    price: Price | None,
    streamed: bool = True,
    note: str | None = None,
) -> ModelAnswer:
    """The answer in `given`. Raises AnswerRejected where it broke off, is empty or misses the schema.

    `price` is the configured one; without it the provider's list price holds, where its address is known.
    """
    calls = [part for part in given.parts if isinstance(part, ToolCallPart)]
    asked_for = [wire_call(part) for part in calls if part.tool_name != ANSWER_TOOL]
    response = _response(request, given, asked_for, price=price, streamed=streamed, note=note)
    verdict = _Verdict(request, response)
    verdict.check_ending(given)
    if asked_for:
        output: dict[str, Any] = {"text": response.text}
    elif request.output_schema is not None:
        written = next((arguments_of(part) for part in calls), response.text)
        output = await verdict.checked_object(written, request.output_schema, checks)
    elif response.text:
        output = {"text": response.text}
    else:
        raise verdict.rejected("INVALID_OUTPUT", f"gave an empty answer{verdict.cut_note}")
    return ModelAnswer(output=output, response=response)


def _response(
    request: ModelRequest,
    given: ModelResponse,
    tool_calls: list[dict[str, Any]],
    *,
    price: Price | None,
    streamed: bool,
    note: str | None,
) -> ProviderResponse:
    tokens, usage = _tokens(given.usage), given.usage
    cost = _list_cost(given, tokens) if price is None else _configured_cost(price, usage, tokens)
    unknown: Literal["no_usage", "no_price"] | None = None
    if cost is None:
        unknown = "no_usage" if tokens is None else "no_price"
    request_id = given.provider_response_id
    return ProviderResponse(
        model_used=replace_surrogates(given.model_name or request.model.partition(":")[2]),
        text=replace_surrogates("".join(part.content for part in given.parts if isinstance(part, TextPart))),
        tool_calls=tool_calls,
        tokens=tokens,
        cached_tokens=usage.cache_read_tokens or None,
        reasoning_tokens=usage.output_reasoning_tokens or usage.details.get("reasoning_tokens") or None,
        cost_usd=cost,
        cost_unknown=unknown,
        finish_reason=given.finish_reason,
        request_id=None if request_id is None else replace_surrogates(request_id)[:_LONGEST_ID],
        streamed=streamed,
        note=note,
    )


class _Verdict:
    """Turns what is wrong with a response into an AnswerRejected that has it with it."""

    def __init__(self, request: ModelRequest, response: ProviderResponse) -> None:
        self.cut_note = (
            " (cut off at the token limit; raise `max_tokens`)" if response.finish_reason == "length" else ""
        )
        self._model = request.model
        self._provider = request.model.partition(":")[0]
        self._response = response

    def rejected(self, code: str, what: str, *, may_retry: bool = True, **details: Any) -> AnswerRejected:
        if self._response.text:
            details["answer"] = self._response.text[:EXCERPT]
        return AnswerRejected(
            code,
            f"model {self._model!r} {what}",
            response=self._response,
            may_retry=may_retry,
            details={"provider": self._provider, "model": self._model, **details},
        )

    def check_ending(self, given: ModelResponse) -> None:
        """Raises where the answer ended in another way than by the model's or the caller's will."""
        reason = given.finish_reason
        details = given.provider_details or {}
        address = address_of(given.provider_url)
        where: dict[str, Any] = {"address": address} if address else {}
        at = f"at {address} " if address else ""
        if reason == "content_filter":
            why = replace_surrogates(str(details.get("refusal") or "its content filter stepped in"))[:500]
            raise self.rejected("PROVIDER_ERROR", f"{at}refused to answer: {why}", may_retry=False, **where)
        if reason == "error":
            raise self.rejected("PROVIDER_UNAVAILABLE", f"{at}failed in the middle of its answer", **where)
        # pydantic-ai reads a Chat Completions stream without a finish reason as finished; it was cut, though.
        # Only xAI's protocol has no reason to look at.
        assumed = reason == "stop" and given.provider_name != "xai"
        if self._response.streamed and "finish_reason" not in details and (reason is None or assumed):
            self._response = msgspec.structs.replace(self._response, finish_reason=None)
            what = f"{at}broke off in the middle of its answer"
            raise self.rejected("PROVIDER_UNAVAILABLE", what, **where)

    async def checked_object(self, written: str, schema: dict[str, Any], checks: Checks) -> dict[str, Any]:
        value = _object_in(written)
        if value is None:
            raise self.rejected("INVALID_OUTPUT", f"gave an answer that is no JSON object{self.cut_note}")
        problems = await self._problems(value, schema, checks, size_bytes=len(written))
        if problems:
            what = f"gave an answer against `output_schema`: {problems[0]}"
            raise self.rejected("INVALID_OUTPUT", what, problems=problems)
        return value

    async def _problems(
        self, value: Any, schema: dict[str, Any], checks: Checks, *, size_bytes: int
    ) -> list[str]:
        try:
            return await checks.problems(value, schema, size_bytes=size_bytes)
        except StepFailure as failure:
            # The answer that cannot be judged is to be paid for all the same.
            raise self.rejected(
                failure.code, f"gave an answer, but {failure.message}", may_retry=False
            ) from (failure)


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
            value = json.loads(replace_surrogates(json.dumps(value, ensure_ascii=False)))
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
