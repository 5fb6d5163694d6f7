"""What a span, or a log record with the same attributes, says of the work that was done."""

from typing import Any

from runglass.recording.dialects import readers
from runglass.recording.dialects.attributes import Attributes, SpanHead
from runglass.recording.dialects.messages import messages_of, response_of, system_of, without_system
from runglass.recording.dialects.model_calls import model_call, told_cost, told_usage
from runglass.recording.dialects.readers import PLAIN, Kind
from runglass.recording.dialects.span_events import MessageEvents

_INTERNAL = (0, 1)
_NETWORK = ("http.", "url.", "db.", "rpc.", "messaging.", "net.", "network.", "faas.", "graphql.")


def read_content(attributes: Attributes, told: MessageEvents, head: SpanHead) -> dict[str, Any]:
    """The fields of its state that follow from `attributes` and the messages that were `told` as events."""
    found = attributes.found
    kind = _kind(attributes, head)
    fields: dict[str, Any] = {"kind": kind.kind, "is_gen_ai": attributes.is_gen_ai, "notes": []}
    for slot in _OWN:
        if slot in found:
            fields[slot] = found.pop(slot)
    if "tags" in found:
        fields["tags"] = tuple(sorted(set(found.pop("tags"))))
    if kind.is_entry:
        fields["entry_name"] = found.pop("agent_name", None) or head.name or None
    if kind.kind in ("llm", "embedding"):
        call = model_call(attributes, told, head, is_embedding=kind.kind == "embedding")
        fields["model_calls"] = (call,)
        fields |= {"tokens": call.tokens, "cost_usd": call.cost_usd, "model_used": call.model_used}
        if "answer" in found:
            fields["output"] = found.pop("answer")
        elif (embeddings := attributes.pop_list("embeddings")) is not None:
            fields["output"] = {"embeddings": embeddings}
    elif attributes.is_gen_ai:
        model = found.get("model_used") or found.get("model")
        usage = told_usage(attributes, scope=head.scope, model=model, is_embedding=False)
        cost, _ = told_cost(attributes, found.get("provider"), (model,), usage, head.priced_ns)
        if usage.tokens is not None or cost is not None:
            fields |= {"tokens": usage.tokens, "cost_usd": cost, "model_used": model}
        fields["notes"] += [note for note in (usage.problem, usage.note) if note is not None]
        if kind.kind == "retrieval":
            _retrieval(attributes, fields)
        elif kind.kind == "tool":
            _tool(attributes, told, fields)
        else:
            _conversation(attributes, told, fields)
    for slot in ("input", "output"):
        if slot in found and slot not in fields:
            fields[slot] = _object(found.pop(slot))
    return fields


_OWN = ("session", "user", "release", "environment")
_LOGFIRE = ("logfire.openai", "logfire.anthropic")
_OF_AN_ANSWER = ("received", "prompt", "completion")
_LLAMA_INDEX = "openinference.instrumentation.llama_index"


def _kind(attributes: Attributes, head: SpanHead) -> Kind:
    known: Kind | None = attributes.pop_word("kind", PLAIN)
    if known is not None and known.kind == "llm" and head.error_code is None:
        # Logfire tells a streamed call by a span of its own as soon as the stream has ended.
        is_begun = head.scope in _LOGFIRE and attributes.found.keys().isdisjoint(_OF_AN_ANSWER)
        if is_begun or (head.name.endswith("._prepare_chat_with_tools") and head.scope == _LLAMA_INDEX):
            return Kind("chain")
    if known is not None and not known.is_vague:
        return known
    if attributes.is_gen_ai:
        found = attributes.found
        if "gen_ai.tool.name" in attributes.rest or "tool.name" in attributes.rest:
            return Kind("tool")
        if "documents" in found:
            return Kind("retrieval")
        if "model" in found and ("provider" in found or "prompt" in found or "sent" in found):
            return Kind("llm")
    if known is not None:
        return known
    is_inside = head.kind in _INTERNAL and not any(key.startswith(_NETWORK) for key in attributes.rest)
    return Kind("code" if is_inside else "other")


def _retrieval(attributes: Attributes, fields: dict[str, Any]) -> None:
    if "query" in attributes.found:
        fields["input"] = {"query": attributes.found.pop("query")}
    candidates = attributes.pop_list("candidates")
    if candidates is not None:
        fields["input"] = fields.get("input", {}) | {"documents": candidates}
    if documents := attributes.pop_list("documents"):
        fields["output"] = {
            "documents": [
                each | {"metadata": readers.json(each["metadata"])}
                if isinstance(each, dict) and "metadata" in each
                else each
                for each in documents
            ]
        }


def _tool(attributes: Attributes, told: MessageEvents, fields: dict[str, Any]) -> None:
    """Some send the call of a tool as a message to it, and its result as one from it."""
    found, rest = attributes.found, attributes.rest
    if "input" not in found:
        sent = found.pop("sent", None) or told.pop_tool_input()
        calls = [call for message in messages_of(sent) for call in message.get("toolCalls", ())]
        if len(calls) == len(sent) == 1 and isinstance(calls[0], dict):
            _keep(rest, "gen_ai.tool.name", calls[0]["function"].get("name"))
            _keep(rest, "gen_ai.tool.call.id", calls[0].get("id"))
            fields["input"] = _object(readers.json(calls[0]["function"]["arguments"]))
        elif sent:
            fields["input"] = _object(sent[0] if len(sent) == 1 else sent)
    if "output" not in found:
        received = messages_of(found.pop("received", None) or told.pop_received(), "tool")
        plain = {"role": "tool"}, {"role": "assistant"}
        output = [
            each["content"]
            if "content" in each
            and {name: value for name, value in each.items() if name not in ("content", "toolCallId", "id")}
            in plain
            else each
            for each in received
        ]
        if output:
            _keep(rest, "gen_ai.tool.call.id", received[0].get("toolCallId", received[0].get("id")))
            fields["output"] = _object(readers.json(output[0]) if len(output) == 1 else output)


def _conversation(attributes: Attributes, told: MessageEvents, fields: dict[str, Any]) -> None:
    found = attributes.found
    sent, answer = attributes.pop_list("sent"), None
    if not sent and (history := found.pop("history", None)):
        # The whole conversation, with the answer behind what was asked.
        sent = history[:-1] if _is_answer(history[-1], found.get("output")) else history
        answer = history[len(sent) :]
    messages = told.pop_sent() if sent is None else messages_of(sent)
    system = system_of(found.pop("system")) if "system" in found else None
    if system is None:
        system, messages = without_system(messages)
    given = {name: value for name, value in (("system", system), ("messages", messages)) if value}
    if given:
        fields["input"] = given
    if "output" in found:
        _keep(attributes.rest, "gen_ai.response.finish_reasons", response_of(answer or [])[1])
    else:
        received = attributes.pop_list("received") or answer or told.pop_received()
        response, reasons = response_of(received)
        _keep(attributes.rest, "gen_ai.response.finish_reasons", reasons)
        if response is None and "said" in found:
            response = {"role": "assistant", "content": found.pop("said")}
        if response is not None:
            is_text = response == {"role": "assistant", "content": response["content"]}
            fields["output"] = _object(response["content"]) if is_text else response


def _is_answer(message: Any, output: Any) -> bool:
    """Whether the last message of a conversation is what came out, and says no more than that."""
    read = messages_of([message])
    if not read or read[-1].get("role") != "assistant":
        return False
    says = read[-1].keys() - {"role", "finish_reason"}
    return output is None or (says == {"content"} and read[-1]["content"] == output)


def _keep(rest: dict[str, Any], key: str, value: Any) -> None:
    """As an attribute, what a message says and no field has."""
    if value:
        rest.setdefault(key, value)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"text" if type(value) is str else "value": value}
