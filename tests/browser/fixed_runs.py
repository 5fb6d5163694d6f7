"""The demo's runs as they might have been one day in November: the same in every millisecond, each time."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from runglass.cli.demo.run import BAD_ORDERS, GOOD_ORDERS, WEATHER, example_flows
from runglass.flows.flow import leaves
from runglass.testing import ORG, RunningServer, running_server
from tests.browser.sent_traces import TICKET, run_of, send
from tests.browser.stored_runs import Log, append_events, store_runs

SENT = "sent"
"""The project with the run that another program has sent."""
NOW = datetime(2026, 11, 20, 14, 10, tzinfo=UTC)
"""When somebody looks at them."""

_FLOWS = {flow.slug: flow for flow in example_flows()}
_ARTICLES = "tea bread cheese apples rice milk butter salt pears plums honey oats"
_AGO_S = {
    "good": 700,
    "failed": 120,
    "retried": 1500,
    "nested": 5400,
    "cancelled": 9000,
    "waiting": 40,
    "going": 95,
    "recovered": 3100,
    "uncaptured": 4000,
    "expired": 16_000,
    "cut": 2300,
}
"""How long ago each run began."""


def _start_ms(kind: str) -> int:
    return int(NOW.timestamp() - _AGO_S[kind]) * 1000


def _id(kind: str) -> str:
    # Lists are in the order of ids, which have the time of their making in them.
    time = f"{_start_ms(kind):012x}"
    return f"{time[:8]}-{time[8:]}-7000-8000-000000000001"


class FixedRuns:
    """The ids of the runs, by what came of them; `going` goes on, and in it a model says something.

    `recorded` is in the project `SENT`.
    """

    def __init__(self, server: RunningServer, going: "_Story", recorded: str) -> None:
        self.good, self.failed = _id("good"), _id("failed")
        self.retried, self.nested = _id("retried"), _id("nested")
        self.cancelled, self.waiting = _id("cancelled"), _id("waiting")
        self.going, self.recovered = _id("going"), _id("recovered")
        self.uncaptured, self.expired, self.cut = _id("uncaptured"), _id("expired"), _id("cut")
        self.recorded = recorded
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
        size = len(msgspec.json.encode(output))
        self.add("step_output", after_ms=after_ms, **place, outputData=output, outputContext=output)
        self.add(
            "step_completed",
            **place,
            output=output,
            outputSizeBytes=size,
            durationMs=after_ms + spent.pop("before_ms", 0),
            **spent,
        )

    def step(
        self, step: str, given: Any, output: Any, *, ms: int, path: Sequence[int] = (), attempt: int = 1
    ) -> None:
        """A step that ends well at once."""
        self.end(self.begin(step, given, path=path, attempt=attempt), output, after_ms=ms)

    def fail(
        self,
        step: str,
        given: Any,
        message: str,
        *,
        ms: int,
        path: Sequence[int] = (),
        attempt: int,
        pause_ms: int,
    ) -> dict[str, Any]:
        """An attempt fails, and is tried again after a pause unless that is 0; returns the error."""
        place = self.begin(step, given, path=path, attempt=attempt)
        error = {
            "code": "CODE_ERROR",
            "message": f"ValueError: {message} (line 1)",
            "exception": "ValueError",
            "line": 1,
            "traceback": f"Traceback (most recent call last):\n  line 1, in <module>\nValueError: {message}",
        }
        if pause_ms:
            self.add(
                "step_retrying",
                after_ms=ms,
                **place,
                error=error,
                nextAttempt=attempt + 1,
                delayMs=pause_ms,
                durationMs=ms,
            )
            self.at_ms += pause_ms
        else:
            self.add("step_error", after_ms=ms, **place, error=error, durationMs=ms)
        return error

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
        call = self.call(place, system, prompt, {"content": answer}, ms=ms, finish=finish)
        spent = {"tokens": call["tokens"], "costUsd": call["costUsd"], "modelUsed": call["modelUsed"]}
        self.end(place, {"text": answer}, after_ms=0, before_ms=ms, finishReason=finish, **spent)

    def call(
        self,
        place: dict[str, Any],
        system: str,
        prompt: str,
        response: dict[str, Any],
        *,
        ms: int,
        finish: str = "stop",
        **more: Any,
    ) -> dict[str, Any]:
        """A model call; returns what was told of it."""
        tokens = [len(system + prompt) // 4, len(str(response)) // 4]
        cost = (tokens[0] * Decimal("0.15") + tokens[1] * Decimal("0.60")) / 1_000_000
        call = {
            "number": 1,
            "model": "openai:gpt-4o-mini",
            "provider": "openai",
            "modelUsed": "gpt-4o-mini",
            "durationMs": ms,
            "timeToFirstTokenMs": ms // 3,
            "streamed": True,
            "finishReason": "tool_call" if "toolCalls" in response else finish,
            "tokens": {"prompt": tokens[0], "completion": tokens[1], "total": sum(tokens)},
            "costUsd": f"{cost:f}",
            "request": {"system": system, "messages": [{"role": "user", "content": prompt}], **more},
            "response": {"role": "assistant", **response},
        }
        self.add("step_model_call", after_ms=ms, **place, modelCall=call)
        return call


def _orders(kind: str, orders: str, *, cut: Collection[int] = ()) -> _Story:
    story = _Story(kind, "add-up-orders", inputs={"message": orders})
    lines = orders.split("\n")
    system = "Describe the order that you are given in one friendly sentence."
    story.step("read_lines", {"message": orders}, {"lines": lines}, ms=4)
    inside = ["describe", "price"]
    story.add("loop_started", stepId="each_order", iterations=len(lines), stepIds=inside)
    for index, line in enumerate(lines):
        article, price = line.split(" ")
        text = f"Somebody would like some {article}, please, at {price}."
        given = {"line": line, "index": index}
        ms, finish = 640 + 130 * index, "stop"
        if index in cut:
            text, finish = text.partition(",")[0], "length"
        story.ask("describe", system, line, text, ms=ms, path=[index], given=given, finish=finish)
        if price == "three":
            message = "could not convert string to float: 'three'"
            story.fail("price", {"text": text}, message, ms=3, path=[index], attempt=1, pause_ms=100)
            error = story.fail("price", {"text": text}, message, ms=3, path=[index], attempt=2, pause_ms=0)
            story.add("flow_failed", runId=story.run_id, stepId="price", error=error)
            return story
        story.step("price", {"text": text}, {"order": text, "price": float(price)}, ms=3, path=[index])
    story.add("loop_completed", stepId="each_order", iterations=len(lines))
    story.step("total", {"items": len(lines)}, {"orders": 3, "total": 19.5}, ms=2)
    story.add("flow_completed", runId=story.run_id, stepId="total", result={"orders": 3, "total": 19.5})
    return story


def _flaky() -> _Story:
    story = _Story("retried", "ask-a-flaky-source")
    for attempt, pause_ms in ((1, 80), (2, 160)):
        story.fail("ask", {}, "the source is busy, ask again", ms=31, attempt=attempt, pause_ms=pause_ms)
    rate = {"rate": 1.0842, "asked": 3}
    story.step("ask", {}, rate, ms=28, attempt=3)
    text = "One euro is 1.0842 dollars; it took 3 questions."
    story.ask("tell", "Tell the exchange rate in one sentence.", text, text, ms=912, given=rate)
    story.add("flow_completed", runId=story.run_id, stepId="tell", result={"text": text})
    return story


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
    calls = [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"city":"Lisbon"}'},
        }
    ]
    system = "Answer the question. Ask for the weather where you need it."
    call = story.call(place, system, prompt, {"content": None, "toolCalls": calls}, ms=734, tools=[WEATHER])
    story.add(
        "step_paused_for_tool_calls",
        runId=story.run_id,
        stepId="answer",
        stepIndex=0,
        iterationsUsed=1,
        toolCallMessages=[],
        toolCalls=calls,
        accumulatedOutputs={},
        tokens=call["tokens"],
        costUsd=call["costUsd"],
        modelUsed=call["modelUsed"],
    )
    return story


def _going() -> _Story:
    lines = [f"{article} {2 + number}.50" for number, article in enumerate(_ARTICLES.split())]
    story = _Story("going", "add-up-orders", trigger="job", inputs={"message": "\n".join(lines)})
    story.step("read_lines", {"message": "\n".join(lines)}, {"lines": lines}, ms=4)
    story.add("loop_started", stepId="each_order", iterations=len(lines), stepIds=["describe", "price"])
    system = "Describe the order that you are given in one friendly sentence."
    for index, line in enumerate(lines[:5]):
        article, price = line.split(" ")
        given = {"line": line, "index": index, "__rendered_prompt__": line}
        if index == 4:
            story.begin("describe", given, path=[index])
            return story
        text = f"Somebody would like some {article}, please, at {price}."
        story.ask("describe", system, line, text, ms=17_000 + 2500 * index, path=[index], given=given)
        story.step("price", {"text": text}, {"order": text, "price": float(price)}, ms=3, path=[index])
    raise AssertionError("it goes on")


def _recovered() -> _Story:
    story = _Story("recovered", "ask-a-flaky-source")
    place = story.begin("ask", {})
    message = "the process that ran the attempt has died"
    story.add(
        "step_retrying",
        after_ms=4100,
        **place,
        error={"code": "WORKER_LOST", "message": message},
        nextAttempt=2,
        delayMs=0,
        durationMs=4100,
    )
    rate = {"rate": 1.0842, "asked": 1}
    story.step("ask", {}, rate, ms=1350, attempt=2)
    text = "One euro is 1.0842 dollars; it took 1 question."
    story.ask("tell", "Tell the exchange rate in one sentence.", text, text, ms=912, given=rate)
    story.add("flow_completed", runId=story.run_id, stepId="tell", result={"text": text})
    return story


def _uncaptured() -> _Story:
    """Under `capture: off`."""
    story = _orders("uncaptured", GOOD_ORDERS).without_content()
    for event in story.events:
        for name in ("inputSizeBytes", "outputSizeBytes"):
            event.pop(name, None)
    return story


@contextmanager
def fixed_server() -> Iterator[tuple[RunningServer, FixedRuns]]:
    """A server with these runs, and their ids."""
    going = _going()
    stories = [
        _orders("good", GOOD_ORDERS),
        _orders("failed", BAD_ORDERS),
        _flaky(),
        _nested(),
        _letter(),
        _tools(),
        going,
        _recovered(),
        _uncaptured(),
        _orders("cut", GOOD_ORDERS, cut=(0, 2)),
        _orders("expired", BAD_ORDERS).without_content(),
    ]
    with running_server(log_level="error", recording_settle_s=0) as server:
        for story in sorted(stories, key=lambda each: each.events[0]["at"]):
            store_runs(server, [story], flow=_FLOWS[story.slug])
        key = server.make_key(ORG, SENT, "admin")
        send(server, *TICKET, key=key, service__version="1.4.2", deployment__environment__name="staging")
        yield server, FixedRuns(server, going, run_of(server, key=key, ended=True))
