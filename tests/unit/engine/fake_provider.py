"""An OpenAI-compatible server on a real socket; a test writes its next answers down beforehand.

Speaks raw HTTP/1.1 on purpose: it must be able to cut a connection in the middle and to fall silent.
And the answers of every family of providers, each in the words of its API.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import msgspec

from tests.emitters.answers import Answer, Asked, anthropic, chat, gemini, responses
from tests.emitters.ledger import Call, Usage
from tests.prove.clustering.network import Answering

DONE = b"data: [DONE]\n\n"
LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look something up",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
}


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP answer. `cut` drops the connection after the body, `silent` leaves it open without an end.

    `before` is sent in front of all of it.
    """

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = {}
    before: bytes = b""
    cut: bool = False
    silent: bool = False


def chunk(
    delta: Mapping[str, Any] | None = None,
    *,
    finish: str | None = None,
    usage: Mapping[str, Any] | None = None,
) -> bytes:
    """One SSE frame of a chat completion; without `delta` the last one, which has no choices."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    frame = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "tiny-1",
        "choices": [] if delta is None else [choice],
        "usage": usage,
    }
    return f"data: {json.dumps(frame)}\n\n".encode()


def error_reply(
    status: int, message: str, *, headers: Mapping[str, str] | None = None, **fields: Any
) -> Reply:
    """An error in OpenAI's shape."""
    body = json.dumps({"error": {"message": message, "type": "some_error", "code": None} | fields}).encode()
    return Reply(status=status, body=body, headers={"content-type": "application/json"} | dict(headers or {}))


class FakeProvider(Answering):
    """Answers each request with the next reply; `requests` are their JSON bodies, `headers` their headers."""

    def __init__(self) -> None:
        super().__init__()
        self.replies: list[Reply] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def reply_to(self, request: dict[str, Any]) -> Reply:
        """The answer to a request with this body."""
        return self.replies.pop(0)

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        headers = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
        request = json.loads(await reader.readexactly(int(headers["content-length"])))
        self.headers.append(headers)
        self.requests.append(request)
        reply = await self.reply_to(request)
        fields = {"content-type": "text/event-stream", "transfer-encoding": "chunked"} | dict(reply.headers)
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(reply.before + f"HTTP/1.1 {reply.status} Status\r\n{lines}\r\n".encode())
        if reply.body:
            writer.write(f"{len(reply.body):x}\r\n".encode() + reply.body + b"\r\n")
        await writer.drain()
        if reply.silent:
            await reader.read()
            return False
        if reply.cut:
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


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
