"""Providers whose answers come over httpx: what each sends, also with odd values, and a server for all."""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any, NamedTuple

import pytest

from tests.emitters.answers import Answer, Asked, anthropic, chat, gemini, responses
from tests.emitters.ledger import Call, Usage
from tests.unit.engine.fake_provider import FakeProvider, Reply

KEY = "sk-the-key-of-all-providers"
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
CALL = {"id": "call_c1_0", "type": "function", "function": {"name": "look", "arguments": '{"word":"sea"}'}}
BODY = {
    "model": "m",
    "messages": [],
    "input": [],
    "contents": [],
    "stream": True,
    "stream_options": {"include_usage": True},
}
"""What a request has in one API or another."""
USED = Usage(5, 2)

Change = Callable[[Any], Any]
"""What becomes of an answer in one piece, or of each frame of a stream."""
Place = tuple[str | int, ...]


class Family(NamedTuple):
    """A model, and the API in whose words its provider answers."""

    model: str
    api: Callable[..., Answer]

    def reply(
        self,
        *pieces: str,
        streamed: bool = True,
        calls: bool = False,
        usage: Usage = USED,
        change: Change = lambda frame: frame,
    ) -> Reply:
        """These pieces, or `Hello`, or a call of the tool `look`; each frame is what `change` makes of it."""
        told = Call("", "c1", "", "tiny-1", usage, is_stream=streamed)
        answer = self.api(BODY, pieces or ["Hello"], [Asked("look", '{"word":"sea"}')] if calls else [])
        if not streamed:
            return in_one(change(answer.whole(told)))
        events = []
        for frame in answer.frames(told):
            data = json.dumps(change(json.loads(frame.data))) if frame.data != "[DONE]" else frame.data
            events.append((f"event: {frame.event}\n" if frame.event else "") + f"data: {data}\n\n")
        return Reply(body="".join(events).encode())


def in_one(value: dict[str, Any]) -> Reply:
    return Reply(body=json.dumps(value).encode(), headers={"content-type": "application/json"})


FAMILIES = {
    "openai chat": Family("openai-chat:gpt-4o-mini", chat),
    "openai responses": Family("openai:gpt-4o-mini", responses),
    "compatible": Family("local:tiny", chat),
    "anthropic": Family("anthropic:claude-sonnet-4-6", anthropic),
    "google": Family("google:gemini-2.5-flash", gemini),
    "mistral": Family("mistral:mistral-small-latest", chat),
    "groq": Family("groq:openai/gpt-oss-20b", chat),
}
COMPATIBLE = FAMILIES["compatible"]


def addressed(fake: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a gateway is given so that the models of all families are asked at the server."""
    # Only here: it takes a while to load.
    from mistralai.client import sdkconfiguration

    host = fake.base_url.removesuffix("/v1")
    monkeypatch.setenv("OPENAI_BASE_URL", fake.base_url)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", host)
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", host)
    monkeypatch.setenv("GROQ_BASE_URL", host)
    monkeypatch.setitem(sdkconfiguration.SERVERS, sdkconfiguration.SERVER_GLOBAL, host)
    names = ("local", "openai", "openai-chat", "anthropic", "google", "groq", "mistral")
    # The one that it is not asked with.
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another-secret-key")
    return {"providers": {"local": fake.base_url}, "provider_keys": dict.fromkeys(names, KEY)}


def places(value: Any, *place: str | int) -> Iterator[Place]:
    """The places of everything inside of a JSON value."""
    inner: Any = value.items() if isinstance(value, dict) else enumerate(value) if type(value) is list else ()
    for name, each in inner:
        yield (*place, name)
        yield from places(each, *place, name)


def with_odd(value: Any, place: Place, odd: Any) -> Any:
    """A copy of the value with something else in one place."""
    changed = deepcopy(value)
    at = changed
    for name in place[:-1]:
        at = at[name]
    at[place[-1]] = odd
    return changed


def put(value: Any, *names: str) -> Change:
    """Puts the value in the place of each member of such a name that is not empty."""

    def change(frame: Any) -> Any:
        if isinstance(frame, list):
            return [change(each) for each in frame]
        if isinstance(frame, dict):
            return {name: value if each and name in names else change(each) for name, each in frame.items()}
        return frame

    return change
