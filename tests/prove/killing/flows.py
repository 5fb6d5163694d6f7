"""The flows that are cut off, the model that they ask, and what must come of each however often they are.

The model counts how often each attempt of each step has called it. It lives in the process that is not
killed, so it knows what really happened, whatever the log says. A prompt is `TAG STEP PATH ATTEMPT`; the
answer depends on the first three alone, and a run's result never on an attempt's number.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from runglass.config.settings import Settings
from tests.ports import free_port
from tests.unit.engine.fake_provider import COMPATIBLE, FakeProvider, Reply, error_reply

PLACE = "acme/demo"
SLOWEST_S = 0.03
NO_PATH = "-"


class Effect(NamedTuple):
    """A step, in an iteration, of the run with this tag."""

    tag: str
    step_id: str
    path: str = NO_PATH

    @property
    def said(self) -> str:
        """What the model answers to it."""
        return "/".join(self)


class Outside(FakeProvider):
    """Counts calls by effect and attempt. `busy` is refused at first, `never` always."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[Effect, Counter[int]] = {}

    @property
    def total(self) -> int:
        return sum(attempts.total() for attempts in self.calls.values())

    def settings(self, data: Path, **how: Any) -> Settings:
        """Of a process on a free port whose steps ask this model, and which gives no run up."""
        return Settings(
            data=data,
            port=free_port(),
            providers={"outside": self.base_url},
            provider_keys={"outside": "none"},
            crash_retries=1_000_000,
            log_level="warning",
            **how,
        )

    async def reply_to(self, request: dict[str, Any]) -> Reply:
        content = request["messages"][-1]["content"]
        text = content if isinstance(content, str) else content[0]["text"]
        *called_for, attempt = text.split(" ")
        effect = Effect(*called_for)
        self.calls.setdefault(effect, Counter())[int(attempt)] += 1
        await asyncio.sleep(random.uniform(0, SLOWEST_S))
        if effect.step_id == "never" or (effect.step_id == "busy" and attempt == "1"):
            return error_reply(503, "busy")
        return COMPATIBLE.reply(effect.said[:20], effect.said[20:])


ASK = 'type: llm, model: "outside:tiny"'
HOLD_MS = 2500
NEVER_TIMES = 2
"""How often the step `never` may fail by itself, however often it is cut off beside."""

LINE = f"""
slug: line
steps:
  - {{id: first, type: code, code: 'return {{"n": n + 1, "tag": tag}}'}}
  - {{id: ask, {ASK}, prompt: "{{{{ tag }}}} ask - {{{{ attempt }}}}"}}
  - {{id: rest, type: wait, ms: 20}}
  - id: shape
    type: llm
    model: echo
    prompt: "{{{{ initial.tag }}}}"
    output_schema: {{type: object, properties: {{kind: {{const: made}}}}, required: [kind]}}
  - id: last
    type: code
    code: 'return {{"said": steps["ask"]["text"], "kind": kind, "n": steps["first"]["n"]}}'
"""

NEST = f"""
slug: nest
steps:
  - id: rows
    type: loop
    over: initial["rows"]
    as: row
    max_concurrency: 2
    steps:
      - id: cells
        type: loop
        over: row
        as: cell
        max_concurrency: 2
        steps:
          - {{id: ask, {ASK}, prompt: "{{{{ initial.tag }}}} ask {{{{ cell }}}} {{{{ attempt }}}}"}}
          - {{id: mark, type: code, code: 'return {{"text": text + "!", "cell": cell}}'}}
  - {{id: last, type: code, code: 'return {{"rows": items}}'}}
"""

FORK = f"""
slug: fork
steps:
  - id: both
    type: parallel
    branches:
      a:
        - {{id: left, {ASK}, prompt: "{{{{ tag }}}} left - {{{{ attempt }}}}"}}
        - id: route
          type: condition
          if: initial["n"] % 2 == 0
          then: [{{id: even, type: passthrough}}]
          else: [{{id: odd, type: wait, ms: 10}}]
      b:
        - {{id: rest, type: wait, ms: 30}}
        - {{id: right, {ASK}, prompt: "{{{{ initial.tag }}}} right - {{{{ attempt }}}}"}}
  - {{id: last, type: code, code: 'return {{"a": a["text"], "b": b["text"]}}'}}
"""

AGAIN = f"""
slug: again
steps:
  - id: shaky
    type: code
    retry: {{max_attempts: 2, initial_delay_ms: 10}}
    code: |
      if attempt == 1:
          raise ValueError("not yet")
      return {{"shaky": "done"}}
  - id: never
    {ASK.replace(", ", chr(10) + "    ")}
    retry: {{max_attempts: {NEVER_TIMES}, initial_delay_ms: 10}}
    on_error: continue
    prompt: "{{{{ initial.tag }}}} never - {{{{ attempt }}}}"
  - id: busy
    {ASK.replace(", ", chr(10) + "    ")}
    retry: {{max_attempts: 2, initial_delay_ms: 10}}
    prompt: "{{{{ initial.tag }}}} busy - {{{{ attempt }}}}"
  - {{id: last, type: code, code: 'return {{"said": text, "shaky": steps["shaky"]["shaky"]}}'}}
"""

FAILS = f"""
slug: fails
steps:
  - {{id: ask, {ASK}, prompt: "{{{{ tag }}}} ask - {{{{ attempt }}}}"}}
  - {{id: bad, type: code, code: 'raise ValueError("for good")'}}
"""

TOOLS = f"""
slug: tools
steps:
  - {{id: talk, type: llm, model: echo, prompt: "{{{{ tag }}}}"}}
  - id: ask
    {ASK.replace(", ", chr(10) + "    ")}
    tools: false
    prompt: "{{{{ initial.tag }}}} ask - {{{{ attempt }}}}"
  - {{id: last, type: code, code: 'return {{"said": text, "talk": steps["talk"]["text"]}}'}}
"""

HOLD = f"""
slug: hold
steps:
  - {{id: hold, type: wait, ms: {HOLD_MS}}}
  - {{id: ask, {ASK}, prompt: "{{{{ initial.tag }}}} ask - {{{{ attempt }}}}"}}
"""

ROWS = [["0,0", "0,1"], ["1,0", "1,1"], ["2,0"]]
"""Each cell names its own place, as a loop path is written."""


class Expected(NamedTuple):
    """How a run of a flow ends, unless it is cancelled, and how it is begun."""

    text: str
    result: Callable[[str, int], Any]
    status: str = "completed"


def parameters(tag: str, n: int) -> dict[str, Any]:
    return {"tag": tag, "n": n, "rows": ROWS}


FLOWS: dict[str, Expected] = {
    "line": Expected(LINE, lambda tag, n: {"said": Effect(tag, "ask").said, "kind": "made", "n": n + 1}),
    "nest": Expected(
        NEST,
        lambda tag, _: {
            "rows": [
                {"items": [{"text": Effect(tag, "ask", cell).said + "!", "cell": cell} for cell in row]}
                for row in ROWS
            ]
        },
    ),
    "fork": Expected(FORK, lambda tag, _: {"a": Effect(tag, "left").said, "b": Effect(tag, "right").said}),
    "again": Expected(AGAIN, lambda tag, _: {"said": Effect(tag, "busy").said, "shaky": "done"}),
    "fails": Expected(FAILS, lambda *_: None, "failed"),
    "tools": Expected(TOOLS, lambda tag, _: {"said": Effect(tag, "ask").said, "talk": tag}),
    "hold": Expected(HOLD, lambda tag, _: {"text": Effect(tag, "ask").said}),
}
