"""One attempt of a step as text: its fields, its snapshots as far as they were kept, and its model calls."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from rich.text import Text

from runglass.cli.terminal import formatting
from runglass.cli.terminal.formatting import as_list, fact
from runglass.cli.terminal.output import clean, one_line
from runglass.errors import is_cancellation
from runglass.log.trace import ModelCall, StepTrace

NOT_KEPT = "not kept, or removed since; capture mode full keeps it, for one run: runglass run … --trace"
NOT_SENT = "not kept, or its sender did not send it"
NOTHING_KEPT = "not kept: under capture mode off nothing is, and --trace does not change that"


def attempt_lines(step: StepTrace) -> Iterator[Text]:
    """The attempt, one fact on a line; snapshots are indented JSON, model calls their messages."""
    cut = ", cut to fit" if step.truncated else ""
    yield fact("step", step.step_id)
    if step.span_id is not None:
        yield from _span_facts(step)
    if where := formatting.iteration(step):
        yield fact("iteration" if step.span_id is None else "number", where)
    told = (step.attributes or {}).get("runglass.attempt")
    yield fact("attempt", str(step.attempt) if told is None else f"{told}, named by --loop {where}")
    is_cut_off = is_cancellation(step.error_context)
    status = "cancelled" if is_cut_off else step.status
    yield fact("status", status, formatting.mark(status)[1])
    for name, at in (("started", step.started_at), ("completed", step.completed_at)):
        yield fact(name, formatting.local_time(at, timespec="milliseconds"))
    yield fact("duration", formatting.duration(step.duration_ms))
    yield fact("model", one_line(step.model_used or formatting.UNKNOWN))
    yield fact("tokens", formatting.tokens(step.tokens))
    yield fact("cost", formatting.money(step.cost_usd))
    if step.finish_reason is not None:
        is_cut = step.finish_reason == "length"
        yield fact("finish", formatting.finish(step.finish_reason), "yellow" if is_cut else "")
    has_ended = step.status in ("completed", "failed")
    # Of what was executed here, capture mode off alone records no size.
    no_size = NOTHING_KEPT if step.span_id is None else NOT_SENT
    if step.input_context is not None or has_ended:
        yield from _snapshot("input", step.input_context, step.input_size_bytes, cut, no_size)
    if step.output_context is not None or step.status == "completed":
        yield from _snapshot("output", step.output_context, step.output_size_bytes, cut, no_size)
    if step.error_context is not None:
        style = "" if is_cut_off else "red"
        yield fact("error", one_line(formatting.error_text(step.error_context)), style)
        yield from _error_lines(step.error_context)
    for name, value in (("attributes", step.attributes), ("events", step.events), ("links", step.links)):
        if value:
            yield fact(name, formatting.counted(len(value), name[:-1]))
            yield from _json_lines(value)
    for call in step.model_calls:
        yield Text()
        yield from _call_lines(call, missing=no_size if step.input_size_bytes is None else NOT_KEPT)


def _span_facts(step: StepTrace) -> Iterator[Text]:
    for name in ("name", "kind", "span_id", "parent_span_id", "scope"):
        if (value := getattr(step, name)) is not None:
            yield fact(name.removesuffix("_span_id").removesuffix("_id"), one_line(value, limit=400))
    for note in step.notes:
        yield fact("note", one_line(note, limit=400), "yellow")


def _snapshot(name: str, value: object, size: int | None, cut: str, no_size: str) -> Iterator[Text]:
    if value is None:
        yield fact(name, no_size if size is None else f"{formatting.size(size)}, {NOT_KEPT}")
        return
    yield fact(name, formatting.size(size) + cut)
    yield from _json_lines(value)


def _error_lines(error: object) -> Iterator[Text]:
    traceback = error.get("traceback") if isinstance(error, dict) else None
    if not isinstance(error, dict) or not isinstance(traceback, str):
        yield from _json_lines(error)
        return
    yield from _json_lines({name: value for name, value in error.items() if name != "traceback"})
    for line in clean(traceback).split("\n"):
        yield Text(f"  {line}")


def _json_lines(value: object) -> Iterator[Text]:
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    for line in text.split("\n"):
        yield Text(f"  {line}")


def _call_lines(call: ModelCall, *, missing: str) -> Iterator[Text]:
    """The facts, the request and the answer of a model call, the two as far as they were kept."""
    yield Text.assemble(
        (f"model call {call.number}  ", "bold"), one_line(call.model_used or call.model, limit=80)
    )
    for name, value in _call_facts(call):
        yield Text(f"  {name:<11}{value}")
    if call.error_code is not None:
        yield Text(f"  failed: {one_line(call.error_code)}", "red")
    if call.truncated:
        yield Text("  cut to fit: what follows is not all", "yellow")
    if call.request is None:
        yield Text(f"  request    {missing}")
    else:
        yield from _request_lines(call.request)
    if call.response is not None:
        yield from _message_lines("answer", call.response)
    elif call.error_code is None and call.request is not None:
        yield Text(f"  answer     {NOT_KEPT}")


def _call_facts(call: ModelCall) -> Iterator[tuple[str, str]]:
    took = f", took {formatting.duration(call.duration_ms)}"
    if call.time_to_first_token_ms is not None:
        took += f", first token after {formatting.duration(call.time_to_first_token_ms)}"
    yield "started", formatting.local_time(call.started_at, timespec="milliseconds") + took
    remarks = filter(None, ("not streamed" if call.streamed is False else None, call.note))
    if remark := one_line(": ".join(remarks)):
        yield "", remark
    numbers = (
        (call.cached_tokens, "cached"),
        (call.cache_write_tokens, "written to the cache"),
        (call.reasoning_tokens, "reasoning"),
    )
    parts = ", ".join(f"{number:,} {name}" for number, name in numbers if number is not None)
    yield "tokens", formatting.tokens(call.tokens) + (f" ({parts})" if parts else "")
    reasons = {
        "no_usage": " (no usage reported)",
        "bad_usage": " (implausible usage reported)",
        "no_price": " (no known price)",
    }
    bound = "at most " if call.cost_estimated else ""
    ours = "" if call.list_cost_usd is None else f" ({formatting.money(call.list_cost_usd)} by our prices)"
    unknown = reasons.get(call.cost_unknown or "", "")
    yield "cost", f"{bound}{formatting.money(call.cost_usd)}{ours}{unknown}"
    if call.finish_reason is not None:
        yield "finish", formatting.finish(call.finish_reason)
    if call.request_id is not None:
        yield "request id", one_line(call.request_id)


def _request_lines(request: Mapping[str, Any]) -> Iterator[Text]:
    if request.get("system") is not None:
        yield from _block("system", request["system"])
    for message in as_list(request.get("messages")):
        if isinstance(message, dict) and "role" in message:
            yield from _message_lines(str(message["role"]), message)
        else:
            # One that was too large is kept as a value that shows its shape; some providers have other items.
            yield from _block("message", message)
    if names := formatting.called(request.get("tools")):
        yield from _block("tools", ", ".join(names))
    for name, title in (("toolChoice", "choice"), ("settings", "settings"), ("outputSchema", "schema")):
        if request.get(name) is not None:
            yield from _block(title, request[name])


def _message_lines(title: str, message: Mapping[str, Any]) -> Iterator[Text]:
    content = message.get("content")
    calls = message.get("toolCalls") or message.get("tool_calls")
    images = message.get("attachments")
    if content is not None or not (calls or images):
        yield from _block(title, content)
    if images:
        yield from _block("images", images)
    for call in as_list(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            yield from _block("calls", f"{function.get('name')}({function.get('arguments')})")
        else:
            yield from _block("calls", call)


def _block(title: str, value: object) -> Iterator[Text]:
    """Text as it is, anything else as JSON; further lines stand below the first."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    first, *others = text.split("\n")
    yield Text.assemble("  ", (f"{one_line(title, limit=10):<10} ", "bold"), first)
    for line in others:
        yield Text(f"{'':<13}{line}")
