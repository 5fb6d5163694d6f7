"""An OpenAI-compatible server on a real socket; a test writes its next answers down beforehand.

Speaks raw HTTP/1.1 on purpose: it must be able to cut a connection in the middle and to fall silent.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import msgspec

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
