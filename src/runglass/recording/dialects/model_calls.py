"""A model call, of what a span or a log record says of it."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from runglass.log.money import ZERO, format_usd
from runglass.log.trace import ModelCall
from runglass.recording.dialects import readers
from runglass.recording.dialects.attributes import Attributes, SpanHead
from runglass.recording.dialects.messages import (
    messages_of,
    response_of,
    system_of,
    tools_of,
    without_system,
)
from runglass.recording.dialects.payloads import answered, asked
from runglass.recording.dialects.prices import list_cost
from runglass.recording.dialects.span_events import MessageEvents
from runglass.recording.dialects.usage import COUNTS, DETAILS, NONE, Usage, read_usage
from runglass.support.clock import iso_ms


def model_call(
    attributes: Attributes, told: MessageEvents, head: SpanHead, *, is_embedding: bool
) -> ModelCall:
    """The call; of one that goes on no reason is told why its cost is unknown."""
    found = attributes.found
    provider = attributes.pop_word("provider")
    model, model_used = found.pop("model", None), found.pop("model_used", None)
    model, model_used = model or model_used or "", model_used or model
    usage = told_usage(attributes, scope=head.scope, model=model_used, is_embedding=is_embedding)
    cost, ours = told_cost(attributes, provider, (model_used, model), usage, head.priced_ns)
    if usage.problem is not None:
        cost_unknown = "bad_usage"
    elif cost is not None or not (usage.tokens or head.end_ns):
        cost_unknown = None
    else:
        cost_unknown = "no_price" if usage.tokens else "no_usage"
    request = _request(attributes, told)
    response, reasons = _response(attributes, told)
    finish = attributes.pop_word("finish") or (reasons and readers.finish_reasons(reasons))
    return ModelCall(
        number=1,
        model=f"{provider}:{model}" if provider and model else model,
        provider=provider,
        model_used=model_used,
        started_at=iso_ms(head.start_ns // 1_000_000) if head.start_ns else None,
        duration_ms=(head.end_ns - head.start_ns) // 1_000_000 if 0 < head.start_ns <= head.end_ns else None,
        time_to_first_token_ms=_first_token_ms(found, head.start_ns),
        streamed=found.pop("streamed", None),
        note=usage.problem or usage.note,
        finish_reason=finish[0] if finish else None,
        request_id=found.pop("request_id", None),
        tokens=usage.tokens,
        cached_tokens=usage.cache_read,
        cache_write_tokens=usage.cache_write,
        reasoning_tokens=usage.reasoning,
        cost_usd=cost,
        list_cost_usd=ours,
        cost_unknown=cost_unknown,
        error_code=head.error_code,
        request=request or None,
        response=response,
    )


def told_usage(attributes: Attributes, *, scope: str, model: str | None, is_embedding: bool) -> Usage:
    """The usage; numbers that are not booked stay attributes."""
    found = attributes.found
    counts = {slot: found[slot] for slot in COUNTS if slot in found}
    details: dict[str, Any] = {}
    for slot in DETAILS:
        details |= found.get(slot, ())
    answer = found.get("output")
    if type(answer) is dict and type(answer.get("usage_metadata")) is dict:
        details |= answer["usage_metadata"]
    if not counts and not details:
        return NONE
    model = (model or "").lower()
    is_raw = (
        scope.startswith(_PASS_ON)
        and any(name in model for name in ("claude", "anthropic", "nova"))
        # Strands, since it has the newer names, keeps to what they mean.
        and not attributes.is_sent("cache_read", "gen_ai.usage.cache_read.input_tokens")
    )
    usage = read_usage(counts, details, model=model, is_raw=is_raw, is_embedding=is_embedding)
    if usage.tokens is not None:
        for slot in counts:
            if usage.note is None or slot != "total":
                del found[slot]
    return usage


_PASS_ON = ("strands", "opentelemetry.instrumentation.botocore", "openinference.instrumentation.bedrock")


def told_cost(
    attributes: Attributes, provider: str | None, models: tuple[str | None, ...], usage: Usage, at_ns: int
) -> tuple[str | None, str | None]:
    """The cost, and what it is by the list where the sender has told it."""
    ours = list_cost(provider, models, usage, at_ns) if usage.tokens else None
    told, slots = _sent_cost(attributes)
    if told is not None and not told and (ours or usage.tokens is None):
        # The price of nothing, or of a model that the sender does not know.
        told = None
    for slot in slots if told is not None else ():
        del attributes.found[slot]
    listed = None if ours is None else format_usd(ours)
    return (listed, None) if told is None else (format_usd(told), listed)


def _sent_cost(attributes: Attributes) -> tuple[Decimal | None, tuple[str, ...]]:
    """The cost that was sent, and the slots that say so."""
    found = attributes.found
    if "cost" in found:
        return found["cost"], ("cost",)
    if "cost_amount" in found and attributes.rest.get("gen_ai.usage.cost.currency", "USD") == "USD":
        return found["cost_amount"], ("cost_amount",)
    if "prompt_cost" in found and "completion_cost" in found:
        return found["prompt_cost"] + found["completion_cost"], ("prompt_cost", "completion_cost")
    details = found.get("cost_details")
    if not details:
        return None, ()
    told = readers.dollars(details.get("total", details.get("total_cost")))
    parts = [readers.dollars(part) for part in details.values()]
    if told is None and parts and None not in parts:
        told = sum((part for part in parts if part is not None), ZERO)
    return told, ()


def _first_token_ms(found: dict[str, Any], start_ns: int) -> int | None:
    first: int | None = found.pop("first_token_ms", None)
    at = found.get("first_token_at")
    if first is None and type(at) is str and start_ns:
        try:
            first = round(datetime.fromisoformat(at).timestamp() * 1000 - start_ns / 1_000_000)
        except (ValueError, OverflowError):
            return None
        if first < 0:
            return None
        del found["first_token_at"]
    return first


def _request(attributes: Attributes, told: MessageEvents) -> dict[str, Any]:
    found = attributes.found
    request: dict[str, Any] = {}
    if (listed := attributes.pop_list("sent")) is not None:
        sent = messages_of(listed)
    elif not (sent := told.pop_sent()) and "input" in found:
        sent, request = asked(found["input"])
        if sent:
            del found["input"]
    if "system" in found:
        request["system"] = system_of(found.pop("system"))
    elif sent and request.get("system") is None:
        request["system"], sent = without_system(sent)
    if sent:
        request["messages"] = sent
    if (tools := attributes.pop_list("tools")) is not None:
        request["tools"] = tools_of(tools)
    request["settings"] = request.get("settings", {}) | attributes.pop_settings() or None
    request["toolChoice"] = found.pop("tool_choice", None)
    request["outputSchema"] = found.pop("output_schema", None)
    return {name: value for name, value in request.items() if value is not None}


def _response(attributes: Attributes, told: MessageEvents) -> tuple[dict[str, Any] | None, list[str]]:
    found = attributes.found
    if (listed := attributes.pop_list("received")) is not None:
        received = listed
    elif not (received := told.pop_received()) and "output" in found:
        received, left = answered(found["output"])
        if received:
            del found["output"]
            if left:
                found["answer"] = left
    response, reasons = response_of(received)
    if response is None and not found.keys().isdisjoint(("said", "said_calls")):
        calls = found.pop("said_calls", None)
        (message,) = messages_of([{"tool_calls": calls}], "assistant")
        response = {"role": "assistant", "content": found.pop("said", None)} | message
    if response is not None and "said_reasoning" in found:
        response["reasoning"] = found.pop("said_reasoning")
    return response, reasons
