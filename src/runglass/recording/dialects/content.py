"""What a span, or a log record with the same attributes, says of the work that was done."""

from typing import Any

from runglass.log.span_words import MOST_CHARS, MOST_TAGS
from runglass.log.trace import ModelCall
from runglass.recording.dialects import readers
from runglass.recording.dialects.attributes import Attributes, SpanHead
from runglass.recording.dialects.messages import (
    Message,
    messages_of,
    response_of,
    system_of,
    tools_of,
    without_system,
)
from runglass.recording.dialects.readers import Kind
from runglass.recording.dialects.usage import told_cost, told_usage
from runglass.support.clock import iso_ms

_NETWORK = ("http.", "url.", "db.", "rpc.", "messaging.", "net.", "network.", "faas.", "graphql.")
_LOGFIRE = ("logfire.openai", "logfire.anthropic")
_AGENT_FRAMEWORK = "agent_framework"
_RECORDER = "runglass.recorder"
"""Its step of the kind `llm` is a call only where it says what was called: others have their calls inside."""
_LLAMA_INDEX = "openinference.instrumentation.llama_index"
_OWN = ("session", "user", "release", "environment")
_OF_THE_SENDING = frozenset(
    {
        *("input_size_bytes", "output_size_bytes", "truncated", "lease_s", "settle_s"),
        *("notes", "dropped_steps", "dropped_bytes"),
    }
)
"""What only those say who know what becomes of it here."""
_OF_A_REQUEST = ("system", "messages", "tools", "settings", "toolChoice", "outputSchema")
_OF_A_CALL = frozenset({"model", "model_used", "provider", "sent", "received"})
_MARKS = {"role", "content", "parts", "lc"}


def read_content(attributes: Attributes, head: SpanHead) -> dict[str, Any]:
    """The fields of its state that follow from `attributes`."""
    found = attributes.found
    kind = _kind(attributes, head)
    fields: dict[str, Any] = {"kind": kind.kind, "is_gen_ai": attributes.is_gen_ai, "notes": []}
    if not _OF_THE_SENDING.isdisjoint(found):
        fields |= {slot: found.pop(slot) for slot in _OF_THE_SENDING & found.keys()}
        # They outlive the content. A part of a long one could be that of a secret.
        fields["notes"] = [
            note if len(note) <= MOST_CHARS else f"a note of {len(note):,} characters was left out"
            for note in fields["notes"][:MOST_TAGS]
        ]
        steps, size = fields.pop("dropped_steps", 0), fields.pop("dropped_bytes", 0)
        if steps or size:
            fields["notes"].append(f"the sender dropped {steps:,} steps, and {size:,} bytes of content")
    if head.scope == _AGENT_FRAMEWORK and kind.kind == "llm":
        # There it is the id of the answer before.
        attributes.leave("session", "gen_ai.conversation.id")
    for slot in _OWN:
        if slot in found:
            fields[slot] = found.pop(slot)
    if "tags" in found:
        fields["tags"] = tuple(sorted(set(found.pop("tags"))))
    if kind.is_entry:
        fields["entry_name"] = found.pop("agent_name", None) or head.name or None
    is_call = kind.kind in ("llm", "embedding")
    if is_call and not (head.scope == _RECORDER and _OF_A_CALL.isdisjoint(found)):
        call = _model_call(attributes, head, is_embedding=kind.kind == "embedding")
        fields["model_calls"] = (call,)
        fields |= {"tokens": call.tokens, "cost_usd": call.cost_usd, "model_used": call.model_used}
        if "embeddings" in found:
            fields["output"] = {"embeddings": attributes.take("embeddings")}
    elif attributes.is_gen_ai:
        model = found.get("model_used") or found.get("model")
        usage = told_usage(attributes, head.scope, model)
        cost, _ = told_cost(attributes, found.get("provider"), (model,), usage, head)
        if usage.tokens is not None or cost is not None:
            fields |= {"tokens": usage.tokens, "cost_usd": cost, "model_used": model}
        fields["notes"] += [note for note in (usage.problem, usage.note) if note is not None]
        if kind.kind == "retrieval":
            _retrieval(attributes, fields)
        elif kind.kind == "tool":
            _tool(attributes)
        else:
            _conversation(attributes, fields)
    for slot in ("input", "output"):
        if slot in found and slot not in fields:
            fields[slot] = _object(found.pop(slot))
    return fields


def _kind(attributes: Attributes, head: SpanHead) -> Kind:
    found, rest = attributes.found, attributes.rest
    known: Kind | None = attributes.take_word("kind")
    if known is not None and known.kind == "llm" and head.error_code is None:
        # Logfire tells a streamed call by a span of its own as soon as the stream has ended.
        is_begun = head.scope in _LOGFIRE and found.keys().isdisjoint(("received", "prompt", "completion"))
        if is_begun or (head.name.endswith("._prepare_chat_with_tools") and head.scope == _LLAMA_INDEX):
            return Kind("chain")
    if known is not None and not known.is_vague:
        return known
    if attributes.is_gen_ai:
        if "gen_ai.tool.name" in rest or "tool.name" in rest:
            return Kind("tool")
        if "model" in found and ("provider" in found or "prompt" in found or "sent" in found):
            return Kind("llm")
    is_inside = head.kind < 2 and not any(key.startswith(_NETWORK) for key in rest)
    return known or Kind("code" if is_inside else "other")


def _model_call(attributes: Attributes, head: SpanHead, *, is_embedding: bool) -> ModelCall:
    """The call; of one that goes on no reason is told why its cost is unknown."""
    found = attributes.found
    provider = attributes.take_word("provider")
    model, model_used = found.pop("model", None), found.pop("model_used", None)
    model, model_used = model or model_used or "", model_used or model
    usage = told_usage(attributes, head.scope, model_used, is_embedding=is_embedding)
    cost, ours = told_cost(attributes, provider, (model_used, model), usage, head)
    cost_unknown = None
    if usage.problem is not None:
        cost_unknown = "bad_usage"
    elif cost is None and (usage.tokens or head.end_ns):
        cost_unknown = "no_price" if usage.tokens else "no_usage"
    request = _request(attributes)
    response, reasons = _response(attributes)
    first_ms = found.pop("first_token_ms", None)
    if first_ms is None and head.start_ns and "first_token_at" in found:
        first_ms = readers.milliseconds(found["first_token_at"] - head.start_ns / 1_000_000)
        if first_ms is not None:
            del found["first_token_at"]
    finish = attributes.take_word("finish") or readers.finish_reasons(reasons)
    return ModelCall(
        number=1,
        model=f"{provider}:{model}" if provider and model else model,
        provider=provider,
        model_used=model_used,
        started_at=iso_ms(head.start_ns // 1_000_000) if head.start_ns else None,
        duration_ms=(head.end_ns - head.start_ns) // 1_000_000 if 0 < head.start_ns <= head.end_ns else None,
        time_to_first_token_ms=first_ms,
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


def _request(attributes: Attributes) -> dict[str, Any]:
    """What the model was given, told by itself or, where nothing is, as one value."""
    found = attributes.found
    request: dict[str, Any] = {}
    if "sent" in found:
        request["messages"] = messages_of(attributes.take("sent"))
    elif (asked := _asked(found.get("input"))) is not None:
        del found["input"]
        request = asked
    if "tools" in found:
        request["tools"] = attributes.take("tools")
    if isinstance(request.get("tools"), list):
        request["tools"] = tools_of(request["tools"])
    request["settings"] = request.get("settings", {}) | found.pop("settings", {}) | found.pop("requested", {})
    request["toolChoice"] = found.pop("tool_choice", None)
    request["outputSchema"] = found.pop("output_schema", None)
    return _with_system(found, request)


def _with_system(found: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """What there is of a request, with the instructions that are told beside the messages, or begin them."""
    if "system" in found:
        request["system"] = system_of(found.pop("system"))
    elif request.get("messages") and request.get("system") is None:
        request["system"], request["messages"] = without_system(request["messages"])
    return {name: request[name] for name in _OF_A_REQUEST if request.get(name)}


def _asked(value: Any) -> dict[str, Any] | None:
    """What a model was given, as `ModelCall.request` has it, where an emitter sends it as one value."""
    if isinstance(value, str):
        return {"messages": messages_of([value])}
    more = dict(value) if isinstance(value, dict) else {"messages": value}
    if not _are_messages([more.get("messages")]) or not isinstance(more["messages"], list):
        return None
    request = {"messages": messages_of(more.pop("messages"))}
    if (system := more.pop("system", None)) is not None:
        request["system"] = system_of(system)
    return request | {"tools": more.pop("tools", None), "settings": more}


def _response(attributes: Attributes) -> tuple[Message | None, list[str]]:
    """What the model gave back, told by itself or, where nothing is, as one value; what is more stays."""
    found = attributes.found
    if "received" in found:
        return _said(found, attributes.take("received"))
    output = found.get("output")
    left: dict[str, Any] = dict(output) if isinstance(output, dict) else {}
    answers: list[Any] = []
    if isinstance(output, str):
        answers = [output]
    elif isinstance(output, list) and _are_messages(output):
        answers = output
    many = next((name for name in ("choices", "generations") if isinstance(left.get(name), list)), None)
    if many is not None and left[many]:
        answers = left.pop(many)
        if isinstance(answers[0], list):
            # LangChain, for each prompt of a batch; there is one.
            left |= {many: answers[1:]} if len(answers) > 1 else {}
            answers = answers[0]
    elif {"role", "content"} <= left.keys():
        answers, left = [output], {}
    if answers:
        del found["output"]
        if left:
            found["output"] = left
    return _said(found, answers)


def _said(found: dict[str, Any], answers: list[Any]) -> tuple[Message | None, list[str]]:
    """The answer, or where there is none what the AI SDK tells of it one by one."""
    response, reasons = response_of(answers)
    if response is None and ("said" in found or "said_calls" in found):
        (message,) = messages_of([{"tool_calls": found.pop("said_calls", None)}], "assistant")
        response = {"role": "assistant", "content": found.pop("said", None)} | message
    if response is not None and "said_reasoning" in found:
        response["reasoning"] = found.pop("said_reasoning")
    return response, reasons


def _are_messages(value: Any) -> bool:
    if not isinstance(value, list):
        return isinstance(value, dict) and not _MARKS.isdisjoint(value)
    return value != [] and all(map(_are_messages, value))


def _retrieval(attributes: Attributes, fields: dict[str, Any]) -> None:
    if "query" in attributes.found:
        fields["input"] = {"query": attributes.found.pop("query")}
    if documents := attributes.take("documents"):
        for number, each in enumerate(documents):
            if isinstance(each, dict) and "metadata" in each:
                documents[number] = each | {"metadata": readers.json(each["metadata"])}
        fields["output"] = {"documents": documents}


def _tool(attributes: Attributes) -> None:
    """Strands sends what a tool was given as a message to it, and its result as one from it."""
    found = attributes.found
    for slot, told in (("input", "sent"), ("output", "received")):
        if slot not in found and told in found:
            values = []
            for message in messages_of(attributes.take(told), "tool"):
                is_plain = "content" in message and message.keys() <= {"role", "content", "toolCallId", "id"}
                if is_plain:
                    call_id = message.get("toolCallId", message.get("id"))
                    _keep(attributes.rest, "gen_ai.tool.call.id", call_id)
                values.append(message["content"] if is_plain else message)
            if values:
                found[slot] = readers.json(values[0]) if len(values) == 1 else values


def _conversation(attributes: Attributes, fields: dict[str, Any]) -> None:
    found, rest = attributes.found, attributes.rest
    # The whole conversation has the answer behind what was asked.
    history = [] if "sent" in found else found.pop("history", [])
    last, _ = response_of(history[-1:])
    is_answer = (
        last is not None
        and last["role"] == "assistant"
        and ("output" not in found or last == {"role": "assistant", "content": found["output"]})
    )
    asked = len(history) - is_answer
    if given := _with_system(found, {"messages": messages_of(attributes.take("sent") or history[:asked])}):
        fields["input"] = given
    if "output" in found:
        _keep(rest, "gen_ai.response.finish_reasons", response_of(history[asked:])[1])
        return
    # These are of calls inside.
    attributes.leave("said_calls", "ai.response.toolCalls")
    response, reasons = _said(found, attributes.take("received") or history[asked:])
    _keep(rest, "gen_ai.response.finish_reasons", reasons)
    if response is not None:
        is_text = response == {"role": "assistant", "content": response["content"]}
        fields["output"] = _object(response["content"]) if is_text else response


def _keep(rest: dict[str, Any], key: str, value: Any) -> None:
    """As an attribute, what a message says and no field has."""
    if value:
        rest.setdefault(key, value)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"text" if type(value) is str else "value": value}
