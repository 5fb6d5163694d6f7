"""A model server outside, which keeps books of its own: what each call really cost, and what came with it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, NamedTuple, Self

COMPLETION_TOKENS = 100
PROMPT_TOKENS = 10
USD_PER_MTOK = {"dear": Decimal(100), "cheap": Decimal(1)}
"""Of completion tokens; prompts are free, so that a call of the dear model costs one cent."""

PROVIDER_KEY = "pk-5f0c2b7e91d84a63"
"""What the server shows the provider; no caller may ever see it."""

ANSWER_S = 0.05


class Heard(NamedTuple):
    """A call as the provider saw it."""

    model: str
    headers: dict[str, str]
    body: dict[str, Any]


class Provider:
    """Speaks just enough of the OpenAI protocol. `refusal`, if set, is the message of a 401 instead."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.refusal: str | None = None
        self.base_url = ""

    @classmethod
    @asynccontextmanager
    async def serving(cls) -> AsyncIterator[Self]:
        provider = cls()
        server = await asyncio.start_server(provider._serve, "127.0.0.1", 0, limit=32 << 20)
        provider.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield provider
        finally:
            server.close()

    @property
    def cost_usd(self) -> Decimal:
        """What all calls have cost, by the model that was really asked."""
        million = Decimal(1_000_000)
        return sum(
            (USD_PER_MTOK[each.model] * COMPLETION_TOKENS / million for each in self.heard), start=Decimal(0)
        )

    def forget(self) -> None:
        """Begins new books."""
        self.heard.clear()
        self.refusal = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                raw = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                pairs = (line.partition(":") for line in raw.split("\r\n")[1:] if line)
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
                await self._answer(writer, headers, body)
        except (OSError, EOFError):
            # The server has given up the call, or is gone.
            writer.transport.abort()

    async def _answer(
        self, writer: asyncio.StreamWriter, headers: dict[str, str], body: dict[str, Any]
    ) -> None:
        await asyncio.sleep(ANSWER_S)
        if self.refusal is not None:
            _write(writer, 401, {"error": {"message": self.refusal, "code": "invalid_api_key"}})
            return
        model = str(body.get("model"))
        self.heard.append(Heard(model if model in USD_PER_MTOK else "dear", headers, body))
        usage = {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": COMPLETION_TOKENS,
            "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
        }
        base = {"id": "c", "created": 1, "model": model}
        if not body.get("stream"):
            message = {"role": "assistant", "content": "spent"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            _write(writer, 200, {**base, "object": "chat.completion", "choices": [choice], "usage": usage})
            return
        chunk = {**base, "object": "chat.completion.chunk"}
        delta = {"index": 0, "delta": {"role": "assistant", "content": "spent"}, "finish_reason": None}
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        parts: list[dict[str, Any]] = [{**chunk, "choices": [delta]}, {**chunk, "choices": [end]}]
        if (body.get("stream_options") or {}).get("include_usage"):
            parts.append({**chunk, "choices": [], "usage": usage})
        text = "".join(f"data: {json.dumps(part)}\n\n" for part in parts) + "data: [DONE]\n\n"
        _write(writer, 200, text, kind="text/event-stream")


def _write(
    writer: asyncio.StreamWriter, status: int, body: dict[str, Any] | str, *, kind: str = "application/json"
) -> None:
    data = (body if isinstance(body, str) else json.dumps(body)).encode()
    writer.write(
        f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    )
    writer.write(data)
