"""The answer of a provider, read and judged: its text and tool calls, and whether the step can use it.

Pure: takes the finished response and does no I/O. An answer that is of no use still has its cost.
"""

import json
from typing import Any

import msgspec
from pydantic_ai.exceptions import UnexpectedModelBehavior
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart

from runglass.config.settings import Price
from runglass.engine.models.message_mapping import ANSWER_TOOL, arguments_of, wire_call
from runglass.engine.models.model_types import AnswerRejected, ModelAnswer, ModelRequest, ProviderResponse
from runglass.engine.models.provider_errors import EXCERPT, address_of
from runglass.engine.models.usage import read_usage
from runglass.engine.workers.checks import Checks
from runglass.errors import StepFailure
from runglass.support.safe_text import replace_surrogates

_LONGEST_NAME = 200


def check_types(given: ModelResponse) -> None:
    """Raises UnexpectedModelBehavior for what a provider's library has passed on in spite of its type."""
    about = {
        "model": given.model_name,
        "id": given.provider_response_id,
        "finish reason": given.finish_reason,
    }
    texts: list[tuple[str, Any]] = [item for item in about.items() if item[1] is not None]
    for part in given.parts:
        match part:
            case TextPart(content=content):
                texts.append(("content", content))
            case ToolCallPart(tool_name=name, tool_call_id=call_id, args=args):
                texts += [("name of a tool call", name), ("id of a tool call", call_id)]
                if not isinstance(args, dict | None):
                    texts.append(("arguments of a tool call", args))
                # It raises for what is nested too deeply.
                arguments_of(part)
    for name, value in texts:
        if not isinstance(value, str):
            raise UnexpectedModelBehavior(f"the {name} is {value!r:.50}, not a text")


async def read_answer(
    request: ModelRequest,
    given: ModelResponse,
    *,
    checks: Checks,
    price: Price | None,
    image_tokens: int,
    streamed: bool = True,
    note: str | None = None,
) -> ModelAnswer:
    """The answer in `given`. Raises AnswerRejected where it broke off, is empty or misses the schema.

    `price` is the configured one; without it the provider's list price holds, where its address is known.
    """
    calls = [part for part in given.parts if isinstance(part, ToolCallPart)]
    asked_for = [wire_call(part) for part in calls if part.tool_name != ANSWER_TOOL]
    usage = read_usage(request, given, price=price, image_tokens=image_tokens)
    notes = [note, usage.problem and f"usage that cannot be right is not booked: {usage.problem}"]
    request_id = given.provider_response_id
    response = ProviderResponse(
        model_used=replace_surrogates(given.model_name or request.model.partition(":")[2])[:_LONGEST_NAME],
        text=replace_surrogates("".join(part.content for part in given.parts if isinstance(part, TextPart))),
        tool_calls=asked_for,
        tokens=usage.tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost_usd=usage.cost_usd,
        cost_unknown=usage.cost_unknown,
        finish_reason=given.finish_reason,
        request_id=None if request_id is None else replace_surrogates(request_id)[:_LONGEST_NAME],
        streamed=streamed,
        note="; ".join(filter(None, notes)) or None,
    )
    verdict = _Verdict(request, response, given)
    verdict.check_ending(given)
    if asked_for:
        offered = {tool["function"]["name"] for tool in request.tools}
        for call in asked_for:
            if (name := call["function"]["name"]) not in offered:
                what = f"called the tool {name!r:.100}, which was not offered"
                raise verdict.rejected("PROVIDER_UNAVAILABLE", what)
        if len({call["id"] for call in asked_for}) < len(asked_for):
            raise verdict.rejected("PROVIDER_UNAVAILABLE", "made two tool calls with one id")
        output: dict[str, Any] = {"text": response.text}
    elif request.output_schema is not None:
        written = next((arguments_of(part) for part in calls), response.text)
        output = await verdict.checked_object(written, request.output_schema, checks)
    elif response.text:
        output = {"text": response.text}
    else:
        raise verdict.rejected("INVALID_OUTPUT", f"gave an empty answer{verdict.cut_note}")
    return ModelAnswer(output=output, response=response)


class _Verdict:
    """Turns what is wrong with a response into an AnswerRejected that has it with it."""

    def __init__(self, request: ModelRequest, response: ProviderResponse, given: ModelResponse) -> None:
        self.cut_note = (
            " (truncated at the token limit; raise `max_tokens`)"
            if response.finish_reason == "length"
            else ""
        )
        self._model = request.model
        self._response = response
        self._address = address_of(given.provider_url)

    def rejected(self, code: str, what: str, *, may_retry: bool = True, **details: Any) -> AnswerRejected:
        provider, at = self._model.partition(":")[0], ""
        if self._address:
            details["address"], at = self._address, f" at {self._address}"
        if self._response.text:
            details["answer"] = self._response.text[:EXCERPT]
        return AnswerRejected(
            code,
            f"model {self._model!r}{at} {what}",
            response=self._response,
            may_retry=may_retry,
            details={"provider": provider, "model": self._model, **details},
        )

    def check_ending(self, given: ModelResponse) -> None:
        """Raises where the answer ended in another way than by the model's or the caller's will."""
        reason = given.finish_reason
        details = given.provider_details or {}
        if reason == "content_filter":
            why = replace_surrogates(str(details.get("refusal") or "its content filter stepped in"))[:500]
            raise self.rejected("PROVIDER_ERROR", f"refused to answer: {why}", may_retry=False)
        if reason == "error":
            raise self.rejected("PROVIDER_UNAVAILABLE", "failed in the middle of its answer")
        # pydantic-ai reads a Chat Completions stream without a finish reason as finished; it was cut, though.
        # Only xAI's protocol has no reason to look at.
        assumed = reason == "stop" and given.provider_name != "xai"
        if self._response.streamed and "finish_reason" not in details and (reason is None or assumed):
            self._response = msgspec.structs.replace(self._response, finish_reason=None)
            raise self.rejected("PROVIDER_UNAVAILABLE", "aborted its answer")

    async def checked_object(self, written: str, schema: dict[str, Any], checks: Checks) -> dict[str, Any]:
        value = _object_in(written)
        if value is None:
            raise self.rejected("INVALID_OUTPUT", f"gave an answer that is no JSON object{self.cut_note}")
        try:
            problems = await checks.problems(value, schema, size_bytes=len(written))
        except StepFailure as failure:
            # The answer that cannot be judged is to be paid for all the same.
            what = f"gave an answer, but {failure.message}"
            raise self.rejected(failure.code, what, may_retry=False) from failure
        if problems:
            what = f"gave an answer against `output_schema`: {problems[0]}"
            raise self.rejected("INVALID_OUTPUT", what, problems=problems)
        return value


def _object_in(text: str) -> dict[str, Any] | None:
    """The JSON object that `text` is, or that it wraps in a Markdown fence or in prose."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        start = text.find("{")
        if start < 0:
            return None
        try:
            # Not strict: models write line breaks in strings as they are.
            decoder = json.JSONDecoder(parse_constant=_refuse_constant, strict=False)
            value, _ = decoder.raw_decode(text, start)
            # Unlike msgspec, it takes half a character that is written as an escape, and 1e999 for infinite.
            written = replace_surrogates(json.dumps(value, ensure_ascii=False))
            value = json.loads(written, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
