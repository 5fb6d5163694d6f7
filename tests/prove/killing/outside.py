"""The counter outside: a model that counts how often each attempt of each step has called it.

It lives in the process that is not killed, so it knows what really happened, whatever the log says. A prompt
is `TAG STEP PATH ATTEMPT`, the answer depends on the first three alone: a run's result must not show that it
was interrupted.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self

from tests.unit.engine.fake_provider import Reply, error_reply, text_reply

SLOWEST_S = 0.03
NO_PATH = "-"


class Effect(NamedTuple):
    """A step, in an iteration, of the run with this tag."""

    tag: str
    step_id: str
    path: str


class Outside:
    """Counts calls by effect and attempt. `busy` is refused at first, `never` always; `silent` hangs."""

    def __init__(self, seed: int) -> None:
        self.calls: dict[Effect, Counter[int]] = {}
        self.called = asyncio.Condition()
        self.base_url = ""
        self._random = random.Random(seed)
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}

    @classmethod
    @asynccontextmanager
    async def serving(cls, seed: int) -> AsyncIterator[Self]:
        outside = cls(seed)
        server = await asyncio.start_server(outside._serve, "127.0.0.1", 0)
        outside.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield outside
        finally:
            server.close()
            served = list(outside._open.values())
            for writer in list(outside._open):
                writer.close()
            if served:
                await asyncio.wait(served)
            await server.wait_closed()

    @property
    def total(self) -> int:
        return sum(attempts.total() for attempts in self.calls.values())

    async def until_called(self, effect: Effect, times: int) -> None:
        """Returns when the effect has been called for so often."""
        async with self.called:
            await self.called.wait_for(lambda: self.calls.get(effect, Counter()).total() >= times)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[writer] = task
        try:
            while True:
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()
            del self._open[writer]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        asked = json.loads(await reader.readexactly(int(headers["content-length"])))
        effect, attempt = called_for(asked)
        async with self.called:
            self.calls.setdefault(effect, Counter())[attempt] += 1
            self.called.notify_all()
        if effect.step_id == "silent":
            await reader.read()
            return
        await asyncio.sleep(self._random.uniform(0, SLOWEST_S))
        answer = answer_to(effect)
        reply = text_reply(answer[:20], answer[20:], usage=USAGE)
        if effect.step_id == "never" or (effect.step_id == "busy" and attempt == 1):
            reply = error_reply(503, "busy")
        writer.write(_bytes_of(reply))
        await writer.drain()


USAGE = {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}


def answer_to(effect: Effect) -> str:
    """What the model says."""
    return f"{effect.tag}/{effect.step_id}/{effect.path}"


def called_for(asked: dict[str, Any]) -> tuple[Effect, int]:
    """The effect and the attempt that a request names in its prompt."""
    content = asked["messages"][-1]["content"]
    text = content if isinstance(content, str) else content[0]["text"]
    tag, step_id, path, attempt = text.split(" ")
    return Effect(tag, step_id, path), int(attempt)


def _bytes_of(reply: Reply) -> bytes:
    fields = {"content-type": "text/event-stream", "content-length": str(len(reply.body))} | dict(
        reply.headers
    )
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {reply.status} Status\r\n{head}\r\n".encode() + reply.body
