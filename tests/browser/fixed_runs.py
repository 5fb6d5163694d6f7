"""The demo's runs as they might have been one day in November: the same in every millisecond, each time."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from runglass.cli.demo.run import BAD_ORDERS, GOOD_ORDERS, WEATHER, example_flows
from runglass.flows.flow import leaves
from runglass.testing import ORG, RunningServer
from tests.browser.sent_traces import TICKET, run_of, send
from tests.browser.stored_runs import Log, append_events, store_runs

SENT = "sent"
"""The project with the run that another program has sent."""
NOW = datetime(2026, 11, 20, 14, 10, tzinfo=UTC)
"""When somebody looks at them."""

_FLOWS = {flow.slug: flow for flow in example_flows()}
_ARTICLES = "tea bread cheese apples rice milk butter salt pears plums honey oats"
_AGO_S = {
    "waiting": 40,
    "going": 95,
    "failed": 120,
    "good": 700,
    "retried": 1500,
    "cut": 2300,
    "recovered": 3100,
} | {"uncaptured": 4000, "nested": 5400, "cancelled": 9000, "expired": 16_000}
"""How long ago each run began."""


def _start_ms(kind: str) -> int:
    return int(NOW.timestamp() - _AGO_S[kind]) * 1000


def _id(kind: str) -> str:
    # Lists are in the order of ids, which have the time of their making in them.
    time = f"{_start_ms(kind):012x}"
    return f"{time[:8]}-{time[8:]}-7000-8000-000000000001"


class FixedRuns:
    """The runs by what came of them; `going` goes on, and in it a model says something.

    `recorded` is in the project `SENT`.
    """

    def __init__(self, server: RunningServer, going: "_Story", recorded: str) -> None:
        self.ids = {kind: _id(kind) for kind in _AGO_S} | {"recorded": recorded}
        self._server = server
        self._story = going

    def __len__(self) -> int:
        return len(_AGO_S)

    def say(self, text: str) -> None:
        """The model that is asked in `going` says something."""
        self._story.add("step_progress", **self._story.place, text=text)
        append_events(self._server, self._story)


class _Story(Log):
    """The log of a run of one of the demo's flows."""

    def __init__(
        self, kind: str, slug: str, *, trigger: str = "api", inputs: dict[str, Any] | None = None
    ) -> None:
        super().__init__(_id(kind), start_ms=_start_ms(kind))
        self.slug = slug
        self.place: dict[str, Any] = {}
        """Of the attempt that began last, what its events say."""
        steps = sum(1 for _ in leaves(_FLOWS[slug].steps))
        self.start(slug, steps=steps, triggerType=trigger, startedBy="nk_live_5f3a91c2")
        self.add("run_input", inputs=inputs or {})

    def begin(self, step: str, given: Any, *, path: Sequence[int] = (), attempt: int = 1) -> dict[str, Any]:
        """An attempt starts; returns what all of its events say."""
        place: dict[str, Any] = {"stepId": step, "attempt": attempt, "stepIndex": 0}
        if path:
            place |= {"loopIndex": path[-1], "loopPath": list(path)}
        self.place = place
        size = len(msgspec.json.encode(given))
        self.add("step_started", **place, inputSizeBytes=size)
        self.add("step_input", **place, inputData=given, inputSizeBytes=size)
        return place

    def end(self, place: dict[str, Any], output: Any, *, after_ms: int, **spent: Any) -> None:
        """The attempt ends well."""
        self.add("step_output", after_ms=after_ms, **place, outputData=output, outputContext=output)
        kept = {"output": output, "outputSizeBytes": len(msgspec.json.encode(output))}
        duration_ms = after_ms + spent.pop("before_ms", 0)
        self.add("step_completed", **place, **kept, durationMs=duration_ms, **spent)

    def step(
        self, step: str, given: Any, output: Any, *, ms: int, path: Sequence[int] = (), attempt: int = 1
    ) -> None:
        """A step that ends well at once."""
        self.end(self.begin(step, given, path=path, attempt=attempt), output, after_ms=ms)

    def fail(
        self, step: str, given: Any, message: str, *, ms: int, attempt: int, pause_ms: int, **where: Any
    ) -> dict[str, Any]:
        """An attempt fails, and is tried again after a pause unless that is 0; returns the error."""
        place = self.begin(step, given, attempt=attempt, **where)
        error = {
            "code": "CODE_ERROR",
            "message": f"ValueError: {message} (line 1)",
            "exception": "ValueError",
            "line": 1,
            "traceback": f"Traceback (most recent call last):\n  line 1, in <module>\nValueError: {message}",
        }
        if pause_ms:
            self.retry(place, error, ms=ms, pause_ms=pause_ms)
        else:
            self.add("step_error", after_ms=ms, **place, error=error, durationMs=ms)
        return error

    def retry(self, place: dict[str, Any], error: dict[str, Any], *, ms: int, pause_ms: int) -> None:
        """The attempt is tried again after a pause."""
        following = {"nextAttempt": place["attempt"] + 1, "delayMs": pause_ms, "durationMs": ms}
        self.add("step_retrying", after_ms=ms, **place, error=error, **following)
        self.at_ms += pause_ms

    def ask(
        self,
        step: str,
        system: str,
        prompt: str,
        answer: str,
        *,
        ms: int,
        path: Sequence[int] = (),
        given: Any = None,
        finish: str = "stop",
    ) -> None:
        """A model is asked, and answers."""
        place = self.begin(step, {**(given or {}), "__rendered_prompt__": prompt}, path=path)
        spent = self.call(place, system, prompt, {"content": answer}, ms=ms, finish=finish)
        self.end(place, {"text": answer}, after_ms=0, before_ms=ms, finishReason=finish, **spent)

    def call(
        self,
        place: dict[str, Any],
        system: str,
        prompt: str,
        response: dict[str, Any],
        *,
        ms: int,
        finish: str,
        **more: Any,
    ) -> dict[str, Any]:
        """A model call; returns what its step says that it used."""
        tokens = [len(system + prompt) // 4, len(str(response)) // 4]
        cost = (tokens[0] * Decimal("0.15") + tokens[1] * Decimal("0.60")) / 1_000_000
        used = {
            "tokens": {"prompt": tokens[0], "completion": tokens[1], "total": sum(tokens)},
            "costUsd": f"{cost:f}",
            "modelUsed": "gpt-4o-mini",
        }
        call = {
            "number": 1,
            "model": "openai:gpt-4o-mini",
            "provider": "openai",
            "durationMs": ms,
            "timeToFirstTokenMs": ms // 3,
            "streamed": True,
            "finishReason": finish,
            "request": {"system": system, "messages": [{"role": "user", "content": prompt}], **more},
            "response": {"role": "assistant", **response},
        }
        self.add("step_model_call", after_ms=ms, **place, modelCall=call | used)
        return used


def _orders(
    kind: str,
    orders: str,
    *,
    trigger: str = "api",
    ms: tuple[int, int] = (640, 130),
    cut: Collection[int] = (),
    asks: int | None = None,
) -> _Story:
    """Orders are described one by one, which takes `ms` and so much more for each; `asks` does not end."""
    story = _Story(kind, "add-up-orders", trigger=trigger, inputs={"message": orders})
    lines = orders.split("\n")
    system = "Describe the order that you are given in one friendly sentence."
    story.step("read_lines", {"message": orders}, {"lines": lines}, ms=4)
    story.add("loop_started", stepId="each_order", iterations=len(lines), stepIds=["describe", "price"])
    for index, line in enumerate(lines):
        given: dict[str, Any] = {"line": line, "index": index}
        if index == asks:
            story.begin("describe", given | {"__rendered_prompt__": line}, path=[index])
            return story
        article, price = line.split(" ")
        text, finish = f"Somebody would like some {article}, please, at {price}.", "stop"
        if index in cut:
            text, finish = text.partition(",")[0], "length"
        took_ms = ms[0] + ms[1] * index
        story.ask("describe", system, line, text, ms=took_ms, path=[index], given=given, finish=finish)
        if price == "three":
            failed: dict[str, Any] = {"ms": 3, "path": [index]}
            message = "could not convert string to float: 'three'"
            story.fail("price", {"text": text}, message, attempt=1, pause_ms=100, **failed)
            error = story.fail("price", {"text": text}, message, attempt=2, pause_ms=0, **failed)
            story.add("flow_failed", runId=story.run_id, stepId="price", error=error)
            return story
        story.step("price", {"text": text}, {"order": text, "price": float(price)}, ms=3, path=[index])
    story.add("loop_completed", stepId="each_order", iterations=len(lines))
    story.step("total", {"items": len(lines)}, {"orders": 3, "total": 19.5}, ms=2)
    story.add("flow_completed", runId=story.run_id, stepId="total", result={"orders": 3, "total": 19.5})
    return story


def _rate(story: _Story, *, asked: int, ms: int, attempt: int) -> _Story:
    """A source of exchange rates answers at last."""
    rate = {"rate": 1.0842, "asked": asked}
    story.step("ask", {}, rate, ms=ms, attempt=attempt)
    text = f"One euro is 1.0842 dollars; it took {asked} question{'s' if asked > 1 else ''}."
    story.ask("tell", "Tell the exchange rate in one sentence.", text, text, ms=912, given=rate)
    story.add("flow_completed", runId=story.run_id, stepId="tell", result={"text": text})
    return story


def _flaky() -> _Story:
    story = _Story("retried", "ask-a-flaky-source")
    for attempt, pause_ms in ((1, 80), (2, 160)):
        story.fail("ask", {}, "the source is busy, ask again", ms=31, attempt=attempt, pause_ms=pause_ms)
    return _rate(story, asked=3, ms=28, attempt=3)


def _recovered() -> _Story:
    story = _Story("recovered", "ask-a-flaky-source")
    error = {"code": "WORKER_LOST", "message": "the process that ran the attempt has died"}
    story.retry(story.begin("ask", {}), error, ms=4100, pause_ms=0)
    return _rate(story, asked=1, ms=1350, attempt=2)


def _nested() -> _Story:
    story = _Story("nested", "search-a-grid")
    rows = [[(row * 50 + column) % 97 for column in range(50)] for row in range(40)]
    story.step("lay_out", {}, {"rows": rows}, ms=9)
    story.add("loop_started", stepId="each_row", iterations=len(rows), stepIds=["look", "count_cells"])
    for index, row in enumerate(rows):
        place: dict[str, Any] = {"loopIndex": index, "loopPath": [index]}
        story.add("loop_started", stepId="each_cell", **place, iterations=len(row), stepIds=["look"])
        for column, cell in enumerate(row):
            seen = {"cell": cell, "index": column}
            story.step("look", seen, seen, ms=1 + (index * column) % 3, path=[index, column])
        story.add("loop_completed", stepId="each_cell", **place, iterations=len(row))
        story.step("count_cells", {"items": len(row)}, {"cells": len(row)}, ms=2, path=[index])
    story.add("loop_completed", stepId="each_row", iterations=len(rows))
    story.step("count_rows", {"items": len(rows)}, {"rows": 40, "cells": 2000}, ms=2)
    story.add("flow_completed", runId=story.run_id, stepId="count_rows", result={"rows": 40, "cells": 2000})
    return story


def _letter() -> _Story:
    story = _Story("cancelled", "wait-for-a-person", trigger="job")
    letter = "Dear reader, thank you for looking at this run. It waits until it is cancelled."
    story.ask("draft", "Write a short, kind letter.", letter, letter, ms=1310)
    story.begin("reading_time", {"text": letter})
    story.add(
        "flow_cancelled", after_ms=312_000, runId=story.run_id, reason="cancelled by the key nk_live_5f3a91c2"
    )
    return story


def _tools() -> _Story:
    story = _Story("waiting", "answer-with-tools")
    prompt = "What is the weather like in Lisbon, and shall I take an umbrella?"
    place = story.begin("answer", {"__rendered_prompt__": prompt})
    function = {"name": "weather", "arguments": '{"city":"Lisbon"}'}
    calls = [{"id": "call_1", "type": "function", "function": function}]
    system = "Answer the question. Ask for the weather where you need it."
    response = {"content": None, "toolCalls": calls}
    used = story.call(place, system, prompt, response, ms=734, finish="tool_call", tools=[WEATHER])
    used |= {"toolCallMessages": [], "toolCalls": calls, "iterationsUsed": 1, "accumulatedOutputs": {}}
    story.add("step_paused_for_tool_calls", runId=story.run_id, stepId="answer", stepIndex=0, **used)
    return story


def _uncaptured() -> _Story:
    """Under `capture: off`."""
    story = _orders("uncaptured", GOOD_ORDERS).without_content()
    for event in story.events:
        for name in ("inputSizeBytes", "outputSizeBytes"):
            event.pop(name, None)
    return story


def stories() -> list[_Story]:
    going = "\n".join(f"{article} {2 + number}.50" for number, article in enumerate(_ARTICLES.split()))
    return [
        _orders("good", GOOD_ORDERS),
        _orders("failed", BAD_ORDERS),
        _orders("going", going, trigger="job", ms=(17_000, 2500), asks=4),
        _orders("cut", GOOD_ORDERS, cut=(0, 2)),
        _orders("expired", BAD_ORDERS).without_content(),
        _uncaptured(),
        _flaky(),
        _recovered(),
        _nested(),
        _letter(),
        _tools(),
    ]


def leave_fixed_runs(server: RunningServer) -> FixedRuns:
    """Makes these runs in a server that has nothing else."""
    by_id = {story.run_id: story for story in stories()}
    for run_id in sorted(by_id):
        store_runs(server, [by_id[run_id]], flow=_FLOWS[by_id[run_id].slug])
    key = server.make_key(ORG, SENT, "admin")
    send(server, *TICKET, key=key, service__version="1.4.2", deployment__environment__name="staging")
    return FixedRuns(server, by_id[_id("going")], run_of(server, key=key, ended=True))
