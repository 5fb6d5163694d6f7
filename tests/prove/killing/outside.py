"""The counter outside: a model that counts how often each attempt of each step has called it.

It lives in the process that is not killed, so it knows what really happened, whatever the log says. A prompt
is `TAG STEP PATH ATTEMPT`, the answer depends on the first three alone: a run's result must not show that it
was interrupted.
"""

import asyncio
import json
import random
from collections import Counter
from typing import Any, NamedTuple

from tests.unit.engine.fake_provider import FakeProvider, error_reply, text_reply

SLOWEST_S = 0.03
NO_PATH = "-"


class Effect(NamedTuple):
    """A step, in an iteration, of the run with this tag."""

    tag: str
    step_id: str
    path: str


class Outside(FakeProvider):
    """Counts calls by effect and attempt. `busy` is refused at first, `never` always."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[Effect, Counter[int]] = {}

    @property
    def total(self) -> int:
        return sum(attempts.total() for attempts in self.calls.values())

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        asked = json.loads(await reader.readexactly(int(headers["content-length"])))
        effect, attempt = called_for(asked)
        self.calls.setdefault(effect, Counter())[attempt] += 1
        await asyncio.sleep(random.uniform(0, SLOWEST_S))
        answer = answer_to(effect)
        reply = text_reply(answer[:20], answer[20:], usage=USAGE)
        if effect.step_id == "never" or (effect.step_id == "busy" and attempt == 1):
            reply = error_reply(503, "busy")
        fields = {"content-type": "text/event-stream", **reply.headers, "content-length": len(reply.body)}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"HTTP/1.1 {reply.status} Status\r\n{head}\r\n".encode() + reply.body)
        await writer.drain()
        return True


USAGE = {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}


def answer_to(effect: Effect) -> str:
    return f"{effect.tag}/{effect.step_id}/{effect.path}"


def called_for(asked: dict[str, Any]) -> tuple[Effect, int]:
    content = asked["messages"][-1]["content"]
    text = content if isinstance(content, str) else content[0]["text"]
    tag, step_id, path, attempt = text.split(" ")
    return Effect(tag, step_id, path), int(attempt)
