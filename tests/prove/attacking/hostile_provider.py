"""A model provider that means harm: a process of its own, as what it sends would slow down who sends it.

Run as `python -m tests.prove.attacking.hostile_provider`; it prints its port. The prompt of a request is a
JSON object that names one of `SENDS`, and its arguments; `GET /asked` tells what has come since the last one.
It speaks the OpenAI protocol, as far as it speaks one.
"""

import asyncio
import base64
import itertools
import json
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self, TypeAlias

from tests.prove.attacking.http import PROVIDER_KEY, call, started

Piece: TypeAlias = bytes | float
"""What is sent, or seconds in which nothing is."""

NICE = 5
ENDLESS = 1 << 50
MB = 1_000_000
DEEP = 100_000
BLOCK = 1 << 16
FILLED = b"x" * BLOCK

BASE = {"id": "c", "created": 1, "model": "model"}
USAGE = {"prompt_tokens": 10, "completion_tokens": 100, "total_tokens": 110}
SAID = {"role": "assistant", "content": "spent"}

BROTLI = base64.b64decode(
    "z///fwAkQOKxQHLv//n//w+ABEAcFoDu/T////8BkACIwwLQvf/n//8/ABIAcVgAuvf//P//B0ACIA4LQPf+n////wBIAMRhAeje//P/"
    "/x8ACYA4LADd+3/+//8DIAEQhwWge//P//9/ACQA4rAAdO//+f//D4AEQBwWgO79P////wGQAIjDAtC9/+f//z8AEgBxWAC69//8//8H"
    "QAIgDgtA9/6f////AEgAxGEB6N7/8///HwAJgDgsAN37//z//wcgARCHBaB7/w8="
)
"""256 MiB of blanks."""


def head(*lines: str, status: str = "200 OK", kind: str = "text/event-stream") -> bytes:
    return "\r\n".join(
        [f"HTTP/1.1 {status}", f"Content-Type: {kind}", "Connection: close", *lines, "", ""]
    ).encode()


def data(value: Any) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def part(delta: dict[str, Any], *, finish: str | None = None) -> bytes:
    return data({**BASE, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


END = part({}, finish="stop") + data({**BASE, "choices": [], "usage": USAGE}) + b"data: [DONE]\n\n"
WORD = part(SAID)
WHOLE = head() + WORD + END


class Long(NamedTuple):
    """`begin`, then `again` until it is `size` bytes, then `end`."""

    begin: bytes
    again: bytes
    size: int = ENDLESS
    end: bytes = b""


def _arguments(text: str, **more: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, "function": {"arguments": text}, **more}]}


_TEXT_BEGINS = b'data: {"id":"c","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"'
_TEXT_ENDS = b'"},"finish_reason":null}]}\n\n' + END
_CALL = {"id": "t", "type": "function", "function": {"name": "look", "arguments": '{"a": "'}}

LONG = {
    "line": Long(head() + _TEXT_BEGINS, FILLED),
    "text": Long(head() + WORD, part({"content": "x" * 200}) * 10),
    "reasoning": Long(head(), part({"reasoning_content": "x" * 200}) * 10),
    "one part": Long(head() + _TEXT_BEGINS, FILLED, 100 * MB, _TEXT_ENDS),
    "one piece": Long(
        head(kind="application/json")
        + b'{"id":"c","created":1,"model":"m","object":"chat.completion","choices":'
        b'[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"',
        FILLED,
        100 * MB,
        b'"}}]}',
    ),
    "tool call": Long(
        head() + part({"tool_calls": [{"index": 0, **_CALL}]}),
        part(_arguments("x" * 1000)) * 10,
        110 * MB,
        part(_arguments('"}')) + part({}, finish="tool_calls") + END,
    ),
    "comments": Long(head(), b":\n\n" * BLOCK, 30 * MB, WORD + END),
    "empty lines": Long(head(), b"\n" * BLOCK, 10 * MB, WORD + END),
    "header": Long(b"HTTP/1.1 200 OK\r\nX-Long: ", FILLED),
    "headers": Long(b"HTTP/1.1 200 OK\r\n", b"X-More: x\r\n" * 1000),
    "status": Long(b"HTTP/1.1 200 ", FILLED),
    "chunk size": Long(head("Transfer-Encoding: chunked"), b"0" * BLOCK),
    "nested part": Long(head() + b'data: {"choices": ', b"[" * 1000, DEEP, b"]" * DEEP + b"}\n\n" + END),
    "nested piece": Long(
        head(kind="application/json") + b'{"choices": ', b'{"a":' * 1000, 5 * DEEP, b"1" + b"}" * (DEEP + 1)
    ),
}


def answer(*, stream: bool) -> Iterator[Piece]:
    """An answer as it should be."""
    if stream:
        yield WHOLE
    else:
        choice = {"index": 0, "message": SAID, "finish_reason": "stop"}
        whole = {**BASE, "object": "chat.completion", "choices": [choice], "usage": USAGE}
        yield head(kind="application/json") + json.dumps(whole).encode()


def long(*, stream: bool, what: str) -> Iterator[Piece]:
    """One of `LONG`."""
    begin, again, size, end = LONG[what]
    yield begin
    for _ in range(0, size, len(again)):
        yield again
    yield end


def error(*, stream: bool, status: int, retry_after: str = "") -> Iterator[Piece]:
    """An error of 100 MB."""
    more = [f"Retry-After: {retry_after}"] if retry_after else []
    yield head(*more, status=f"{status} X", kind="application/json") + b'{"error": {"message": "'
    yield from [FILLED] * (100 * MB // BLOCK)
    yield b'"}}'


FORMS = {
    "plain": PROVIDER_KEY,
    "base64": base64.b64encode(PROVIDER_KEY.encode()).decode(),
    "base64 of the header": base64.b64encode(f"Bearer {PROVIDER_KEY}".encode()).decode(),
    "reversed": PROVIDER_KEY[::-1],
    "percent": "".join(f"%{byte:02X}" for byte in PROVIDER_KEY.encode()),
}


def refusal(*, stream: bool, form: str) -> Iterator[Piece]:
    told = {"error": {"message": f"the key {FORMS[form]} is not known", "code": "invalid_api_key"}}
    yield head(status="401 X", kind="application/json") + json.dumps(told).encode()


def packed(*, stream: bool, encoding: str) -> Iterator[Piece]:
    yield head(f"Content-Encoding: {encoding}")
    if encoding == "br":
        yield BROTLI
        return
    packer = zlib.compressobj(1, wbits=31 if encoding == "gzip" else 15)
    yield packer.compress(WORD)
    blanks = b" " * MB
    for _ in range(1000):
        yield packer.compress(blanks)
    yield packer.compress(b"\n\n" + END) + packer.flush()


def in_bytes(*, stream: bool, size: int = 100_000) -> Iterator[Piece]:
    yield head("Transfer-Encoding: chunked")
    body = part({"role": "assistant", "content": "x" * size}) + END
    for first in range(0, len(body), BLOCK):
        yield b"".join(b"1\r\n%c\r\n" % byte for byte in body[first : first + BLOCK])
    yield b"0\r\n\r\n"


def closed(*, stream: bool, after: int) -> Iterator[Piece]:
    body = WORD.replace(b"spent", "“spent” 🎉".encode()) + END
    yield (head("Transfer-Encoding: chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))[:after]


def slow(*, stream: bool, begun: str = "", pause_s: float = 10.0, again: str = "") -> Iterator[Piece]:
    """Nothing, a head or a part, and then so little that it never ends."""
    yield {"": b"", "head": head(), "part": head() + WORD}[begun]
    while True:
        yield pause_s
        yield again.encode()


def parts(*, stream: bool, per_s: float = 0.0) -> Iterator[Piece]:
    """An ordinary answer in parts that does not end; as fast as it goes where no rate is given."""
    yield head() + part({"role": "assistant", "content": ""})
    words = part({"content": "some words more "})
    while True:
        yield words if per_s else words * 100
        if per_s:
            yield 1 / per_s


def redirect(*, stream: bool, to: str, status: int = 307) -> Iterator[Piece]:
    """An answer that leads elsewhere."""
    yield head(f"Location: {to}", "Content-Length: 0", status=f"{status} X")


SENDS: dict[str, Callable[..., Iterator[Piece]]] = {
    send.__name__: send
    for send in (answer, long, error, refusal, packed, in_bytes, closed, slow, parts, redirect)
}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


class Asked(NamedTuple):
    """A request as the provider saw it: where it came, with the key or not, and what it asked to be sent."""

    method: str
    host: str
    path: str
    has_key: bool
    message: str


class Server:
    """Answers until it is killed."""

    def __init__(self) -> None:
        self._asked: list[Asked] = []

    async def serve(self) -> None:
        """Prints its port and never returns."""
        # Every address that leads to this machine: one is where it should be asked, others are elsewhere.
        server = await asyncio.start_server(self._answer, "0.0.0.0", 0, limit=64 << 20)
        sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            raw = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = raw.split("\r\n")
            method, path, _ = first.split(" ")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            if path == "/asked":
                told = json.dumps(self._asked).encode()
                self._asked = []
                writer.write(head(f"Content-Length: {len(told)}") + told)
                return
            body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
            message = next((text for text in _texts(body) if text.startswith('{"send"')), "")
            self._asked.append(Asked(method, headers["host"], path, "authorization" in headers, message))
            wanted = json.loads(message or '{"send": "answer"}')
            for piece in SENDS[wanted.pop("send")](stream=bool(body.get("stream")), **wanted):
                if isinstance(piece, float):
                    await asyncio.sleep(piece)
                else:
                    writer.write(piece)
                    await writer.drain()
        except (OSError, EOFError):
            # Whoever asked has had enough.
            writer.transport.abort()
        finally:
            writer.close()


class HostileProvider:
    """The process, from outside."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @classmethod
    @asynccontextmanager
    async def serving(cls) -> AsyncIterator[Self]:
        async with started("hostile_provider", nice=NICE) as told:
            yield cls(int(await told.readline()))

    async def asked(self) -> list[Asked]:
        told = await call(("127.0.0.1", self.port), "GET", "/asked")
        return list(itertools.starmap(Asked, told.json()))


if __name__ == "__main__":
    asyncio.run(Server().serve())
