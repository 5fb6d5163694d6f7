"""Reads responses of models: OpenAI's, Anthropic's, and those of other servers in the same shape.

Members are read as attributes or as keys, so none of their libraries is imported. Any object may come here:
what it does not tell in a known shape is unknown, None, and reading it never raises.
"""

from typing import Any

import msgspec


class ToolCallAnswer(msgspec.Struct, frozen=True):
    """A tool call of the model; `arguments` is JSON text, incomplete if the stream was left."""

    id: str | None
    name: str
    arguments: str


class Usage(msgspec.Struct, frozen=True):
    """Tokens. `input` includes those read from and written to the cache, `output` those of reasoning."""

    input: int
    output: int
    cached: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    cache_write_1h: int | None = None
    """Those of `cache_write` that Anthropic keeps for an hour, at another price."""


class Answer(msgspec.Struct, frozen=True):
    """What a response says; of several choices, the first."""

    model: str | None = None
    id: str | None = None
    text: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallAnswer] = []
    finish_reason: str | None = None
    usage: Usage | None = None


def read_response(response: object) -> Answer:
    """Reads a whole response. A plain text is an answer, too."""
    if (text := _text(response)) is not None:
        return Answer(text=text)
    content: list[Any] = []
    calls: list[Any] = []
    finish = _text(_get(response, "stop_reason"))
    texts: list[str | None] = []
    reasoning: list[str | None] = []
    if choices := _items(_get(response, "choices")):
        message = _get(choices[0], "message")
        finish = _text(_get(choices[0], "finish_reason"))
        said = _get(message, "content")
        # A legacy completion has its text in the choice.
        content = _items(said) or [said, _get(message, "refusal"), _get(choices[0], "text")]
        reasoning.append(_thought(message))
        calls = _items(_get(message, "tool_calls"))
        if (legacy := _get(message, "function_call")) is not None:
            calls.append({"function": legacy})
    elif type(output := _get(response, "output")) in (list, tuple):
        for item in output:
            content += _items(_get(item, "content"))
            content += _items(_get(item, "summary"))
            calls += [item] if _text(_get(item, "type")) in ("function_call", "custom_tool_call") else []
        finish = _ending(response, bool(calls))
    else:
        content = _items(_get(response, "content"))
        calls = [block for block in content if _text(_get(block, "type")) == "tool_use"]
    for part in content:
        if _text(_get(part, "type")) in ("thinking", "reasoning_text", "summary_text"):
            reasoning.append(_text(_get(part, "thinking", "text")))
        else:
            said = _text(part)
            texts.append(_text(_get(part, "text", "refusal")) if said is None else said)
    return Answer(
        model=_text(_get(response, "model")),
        id=_text(_get(response, "id")),
        text=_joined(texts),
        reasoning=_joined(reasoning),
        tool_calls=[call for call in map(_call, calls) if call is not None],
        finish_reason=finish,
        usage=_usage(_get(response, "usage")),
    )


class StreamedAnswer:
    """Builds an `Answer` from the chunks or events of a stream."""

    def __init__(self) -> None:
        self._head: Any = None
        self._texts: list[str | None] = []
        self._reasoning: list[str | None] = []
        self._calls: dict[object, list[Any]] = {}
        self._finish: str | None = None
        self._usages: list[Any] = []
        self._whole: Answer | None = None

    def add(self, chunk: object) -> None:
        """Reads a chunk or event; unknown kinds are ignored."""
        kind = _text(_get(chunk, "type")) or ""
        if kind == "chunk":
            # Events of `chat.completions.stream` wrap the chunks of the API.
            chunk, kind = _get(chunk, "chunk"), ""
        if kind.startswith("response.") or kind == "error":
            self._add_response_event(kind, chunk)
        elif kind:
            self._add_message_event(kind, chunk)
        else:
            self._add_chat_chunk(chunk)

    def answer(self, *, is_ended: bool) -> Answer:
        """All that came. The usage of a stream that was left or failed is unknown unless it came before."""
        if self._whole is not None:
            return self._whole
        return Answer(
            model=_text(_get(self._head, "model")),
            id=_text(_get(self._head, "id")),
            text=_joined(self._texts),
            reasoning=_joined(self._reasoning),
            tool_calls=[
                ToolCallAnswer(call_id, name or "", "".join(pieces))
                for call_id, name, pieces in self._calls.values()
            ],
            finish_reason=self._finish,
            usage=_usage(*self._usages) if is_ended or self._finish else None,
        )

    def _add_chat_chunk(self, chunk: object) -> None:
        if self._head is None:
            self._head = chunk
        if (usage := _get(chunk, "usage")) is not None:
            self._usages = [usage]
        for choice in _items(_get(chunk, "choices")):
            if _count(_get(choice, "index")):
                continue
            delta = _get(choice, "delta")
            self._finish = _text(_get(choice, "finish_reason")) or self._finish
            texts = (_get(delta, "content"), _get(delta, "refusal"), _get(choice, "text"))
            self._texts += [_text(text) for text in texts]
            self._reasoning.append(_thought(delta))
            if (legacy := _get(delta, "function_call")) is not None:
                self._add_call(0, None, legacy)
            for call in _items(_get(delta, "tool_calls")):
                index, call_id = _count(_get(call, "index")), _text(_get(call, "id"))
                # Some servers send no index, but an id with the first piece.
                key = index if index is not None else call_id or next(reversed(self._calls), None)
                self._add_call(key, call_id, _get(call, "function", "custom"))

    def _add_message_event(self, kind: str, event: object) -> None:
        """Reads an event of Anthropic's messages: the first has no usage of the output yet, the last has."""
        index, delta = _count(_get(event, "index")), _get(event, "delta")
        if kind == "message_start":
            self._head = _get(event, "message")
            self._usages.append(_get(self._head, "usage"))
        elif kind == "content_block_start":
            block = _get(event, "content_block")
            if _text(_get(block, "type")) == "tool_use":
                self._add_call(index, _text(_get(block, "id")), {"name": _get(block, "name")})
        elif kind == "content_block_delta":
            self._texts.append(_text(_get(delta, "text")))
            self._reasoning.append(_text(_get(delta, "thinking")))
            if index in self._calls:
                self._add_call(index, None, {"arguments": _get(delta, "partial_json")})
        elif kind == "message_delta":
            self._finish = _text(_get(delta, "stop_reason")) or self._finish
            self._usages.append(_get(event, "usage"))

    def _add_response_event(self, kind: str, event: object) -> None:
        """Reads an event of OpenAI's responses: the last one has the whole response."""
        response, item = _get(event, "response"), _get(event, "item")
        index, delta = _count(_get(event, "output_index")), _text(_get(event, "delta"))
        if kind in ("response.completed", "response.incomplete", "response.failed"):
            self._whole = read_response(response)
        elif kind in ("response.output_text.delta", "response.refusal.delta"):
            self._texts.append(delta)
        elif kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            self._reasoning.append(delta)
        elif kind in ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta"):
            self._add_call(index, None, {"arguments": delta})
        elif kind == "response.output_item.added" and _get(item, "name") is not None:
            self._add_call(index, _text(_get(item, "call_id")), {"name": _get(item, "name")})
        elif kind == "error":
            self._finish = "error"
        elif response is not None:
            self._head = response

    def _add_call(self, key: object, call_id: str | None, told: object) -> None:
        call = self._calls.setdefault(key, [None, None, []])
        call[0], call[1] = call[0] or call_id, call[1] or _text(_get(told, "name"))
        call[2].append(_text(_get(told, "arguments", "input")) or "")


def _get(value: object, *names: str) -> Any:
    """The first of these members that is not None. Even the truth of an unknown object may raise."""
    for name in names:
        try:
            member = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
        except Exception:  # noqa: S112 - what an object of the user's cannot tell is unknown.
            continue
        if member is not None:
            return member
    return None


def _text(value: object) -> str | None:
    return str.__str__(value) if issubclass(type(value), str) else None


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None


def _items(value: object) -> list[Any]:
    return [*value] if type(value) in (list, tuple) else []  # type: ignore[misc]


def _joined(texts: list[str | None]) -> str | None:
    """All texts as one; None if there is none."""
    said = [text for text in texts if text is not None]
    return "".join(said) if said else None


def _thought(message: object) -> str | None:
    """The reasoning, under the name of DeepSeek and LiteLLM, or of OpenRouter and Groq."""
    return _text(_get(message, "reasoning_content", "reasoning"))


def _ending(response: object, has_calls: bool) -> str | None:
    """The finish reason of one of OpenAI's responses, in the words of chat completions."""
    status = _text(_get(response, "status"))
    if status == "completed":
        return "tool_calls" if has_calls else "stop"
    if status == "incomplete":
        reason = _text(_get(_get(response, "incomplete_details"), "reason"))
        return "length" if reason == "max_output_tokens" else reason
    return "error" if status == "failed" else None


def _call(call: object) -> ToolCallAnswer | None:
    function = _get(call, "function", "custom")
    told = call if function is None else function
    if (name := _text(_get(told, "name"))) is None:
        return None
    arguments = _get(told, "arguments", "input")
    if (text := _text(arguments)) is None:
        try:
            text = "" if arguments is None else msgspec.json.encode(arguments).decode()
        except Exception:
            # An object that is no JSON, from a library that is not the provider's.
            text = ""
    return ToolCallAnswer(_text(_get(call, "call_id", "id")), name, text)


def _usage(*usages: object) -> Usage | None:
    """None if input or output is unknown, or both are 0, which no call has. Later `usages` prevail."""

    def told(*names: str) -> Any:
        found = (_get(usage, *names) for usage in reversed(usages))
        return next((member for member in found if member is not None), None)

    taken = _count(told("prompt_tokens", "input_tokens"))
    given = _count(told("completion_tokens", "output_tokens"))
    if given is None and taken is not None and (total := _count(told("total_tokens"))) is not None:
        # Embeddings have input only.
        given = max(total - taken, 0)
    if taken is None or given is None or not taken + given:
        return None
    details = told("prompt_tokens_details", "input_tokens_details")
    cached, written = _count(_get(details, "cached_tokens")), _count(_get(details, "cache_write_tokens"))
    if cached is None:
        cached = _count(told("cache_read_input_tokens", "prompt_cache_hit_tokens"))
    if written is None:
        written = _count(told("cache_creation_input_tokens"))
    if details is None and told("prompt_tokens") is None:
        # Anthropic does not count them as input.
        taken += (cached or 0) + (written or 0)
    thought = told("completion_tokens_details", "output_tokens_details")
    return Usage(
        taken,
        given,
        cached,
        written,
        _count(_get(thought, "reasoning_tokens", "thinking_tokens")),
        _count(_get(told("cache_creation"), "ephemeral_1h_input_tokens")),
    )
