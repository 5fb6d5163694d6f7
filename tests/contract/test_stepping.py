"""`step`: a walk through a flow, call by call, as streams, with frames that are no events of the log."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any
from unittest.mock import AsyncMock
from uuid import uuid4

import httpx2
import pytest

from runglass.config.settings import Price
from runglass.engine.steps.interpreter import Interpreter
from runglass.testing import RunningServer
from tests.contract import wire
from tests.contract.test_tool_calls import TALK, TOOLS, in_both_spellings
from tests.faulty_store import FaultyStore
from tests.servers import served, server_with
from tests.waiting import eventually


def path_of(slug: str) -> str:
    return f"/seq/acme/demo/{slug}/step"


PATH = path_of("walk")
WALK = """
slug: walk
capture: metadata_only
inputs: {type: object, properties: {n: {type: integer}}, required: [n]}
steps:
  - {id: a, name: Add one, type: code, code: 'return {"n": n + 1}'}
  - id: l
    type: loop
    over: '[1, 2]'
    steps: [{id: inner, type: passthrough}]
  - {id: z, type: code, code: 'return {"total": steps["a"]["n"] + len(items)}'}
"""
MODES = ["off", "metadata_only", "redacted", "full"]
OUTPUT = """
slug: output-{name}
capture: "{mode}"
steps:
  - {{id: a, type: code, code: 'return {{"token": "sk-0123456789abcdef0123456789", "text": "x" * 2000}}'}}
  - {{id: l, type: loop, over: "[1, 2]", steps: [{{id: inner, type: passthrough}}]}}
"""
TOLERANT = """
slug: tolerant-walk
steps:
  - {id: lame, type: code, on_error: continue, code: 'raise ValueError("no")'}
  - {id: hold, name: Hold on, type: wait, ms: 600000}
"""
QUIET_TALK = TALK.replace("slug: talk", "slug: quiet-talk\ncapture: 'off'")


OUTPUTS = [OUTPUT.format(name=mode.replace("_", "-"), mode=mode) for mode in MODES]

server = server_with(WALK, TALK, QUIET_TALK, TOLERANT, *OUTPUTS, capture="full")


def test_a_walk_is_one_run_with_one_trace(http: httpx2.Client) -> None:
    found = wire.walked(http, PATH, parameters={"n": 1})
    run = found[0].data["executionId"]
    assert wire.types(found) == [
        "run_started",
        "step_started",
        "step_output",
        "step_completed",
        "step_paused",
    ]
    started = found[0].data
    assert (started["runId"], started["stepCount"], started["triggerType"]) == (run, 3, "step")
    assert found[3].data["output"] == {"n": 2}, "the caller gets its outputs whatever the log keeps"
    assert (found[4].data["stepId"], found[4].data["stepIndex"]) == ("a", 0), "the step just completed"
    assert wire.trace_of(http, run)["flowRun"]["status"] == "paused"
    # Without an index it continues at the position of the run.
    second = wire.walked(http, PATH, executionId=run)
    assert wire.types(second).count("step_completed") == 2
    assert wire.types(second)[-2:] == ["loop_completed", "step_paused"]
    assert (second[-1].data["stepId"], second[-1].data["stepIndex"]) == ("l", 1)
    # Having counted completed steps, a client is ahead of the cursor: the server takes the smaller one.
    third = wire.walked(http, PATH, executionId=run, stepIndex=4)
    assert wire.types(third)[-2:] == ["step_completed", "flow_completed"]
    assert third[-1].data["result"] == {"total": 4}
    assert wire.refusal(http.post(PATH, json={"executionId": run, "stepIndex": 2})) == (409, "RUN_NOT_PAUSED")
    every = wire.events_of(http, run)
    assert [frame.id for frame in every] == [str(n) for n in range(1, len(every) + 1)]
    trace = wire.trace_of(http, run)
    assert trace["flowRun"]["triggerType"] == "step"
    assert [step["stepId"] for step in trace["steps"]] == ["a", "inner", "inner", "z"]
    assert {step["status"] for step in trace["steps"]} == {"completed"}


DRAFT = """
slug: {slug}
steps:
  - {{id: a, type: code, code: 'return {{"n": 1}}'}}
  - {{id: {last}, type: code, code: 'return {{"n": n + {add}}}'}}
"""


def test_an_unpublished_flow_is_stepped_through_as_it_was_at_the_first_call(
    server: RunningServer, http: httpx2.Client
) -> None:
    """Whatever is pushed or published between two calls, also where the step to come is gone from it."""
    path = "/seq/acme/demo/sketch/step"
    server.push(DRAFT.format(slug="sketch", last="b", add=10), publish=False)
    found = wire.walked(http, path)
    assert (wire.types(found)[-1], found[0].data["version"]) == ("step_paused", 0)
    run = found[0].data["executionId"]
    server.push(DRAFT.format(slug="sketch", last="c", add=20), publish=False)
    fresh = wire.walked(http, path, runRemaining=True)
    assert fresh[-1].data["result"] == {"n": 21}, "a walk that begins now is one through the new draft"
    server.push(DRAFT.format(slug="sketch", last="d", add=30))
    pinned = http.post("/seq/acme/demo/sketch/v1/step", json={"executionId": run, "stepIndex": 1})
    assert wire.refusal(pinned) == (409, "STALE_TREE"), "the run is none of version 1"
    ended = wire.walked(http, path, executionId=run, stepIndex=1)
    assert (wire.types(ended)[-1], ended[-1].data["result"]) == ("flow_completed", {"n": 11})
    assert wire.walked(http, path)[0].data["version"] == 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"parameters": {"n": 1}, "stepIndex": 1}, (400, "INVALID_FIRST_CALL")),
        ({"parameters": {"n": 1}, "stepIndex": -1}, (400, "INVALID_STEP_INDEX")),
        ({"parameters": {}}, (422, "INVALID_REQUEST")),
        ({"executionId": "x"}, (400, "EXECUTION_ID_INVALID")),
        ({"executionId": "0190b0b0-0000-7000-8000-000000000000"}, (404, "RUN_NOT_FOUND")),
        ({"parameters": {"n": 1}, "runRemainin": True}, (422, "INVALID_REQUEST")),
    ],
)
def test_an_invalid_call_is_refused(
    http: httpx2.Client, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert wire.refusal(http.post(PATH, json=body)) == expected


class Keyed:
    """Calls of `step`, each under a key of its own."""

    def __init__(self, http: httpx2.Client, path: str = PATH) -> None:
        self._http = http
        self._path = path
        self._answers: list[httpx2.Response] = []

    def call(self, **body: Any) -> list[dict[str, Any]]:
        answer = self._http.post(self._path, json=body, headers={"Idempotency-Key": str(uuid4())})
        assert answer.status_code == 200, answer.text
        self._answers.append(answer)
        return [frame.data for frame in wire.frames(answer.text)]

    def are_streamed_again(self) -> None:
        """Sends each of them once more."""
        for answer in self._answers:
            assert self._http.send(answer.request).text == answer.text


def completed(events: list[dict[str, Any]]) -> list[tuple[int, Any]]:
    """Attempt and output of each step that was completed."""
    return [(event["attempt"], event["output"]) for event in events if event["eventType"] == "step_completed"]


def test_a_call_that_is_sent_again_is_streamed_again_and_runs_nothing(http: httpx2.Client) -> None:
    """Byte for byte, whatever has come after it: a further attempt of its step, the end of the run."""
    calls = Keyed(http)
    begun = calls.call(parameters={"n": 1}, pausedAtStep="a", client={"name": "other"})
    assert completed(begun) == [(1, {"n": 2})]
    run = begun[0]["executionId"]
    # A whole event may be sent back.
    *_, paused = calls.call(**begun[-1] | {"stepIndex": begun[-1]["stepIndex"] + 1})
    assert (paused["eventType"], paused["executionId"], paused["stepId"]) == ("step_paused", run, "l")
    changed = {"a": {"code": 'return {"n": 8}'}}
    again = calls.call(executionId=run, stepIndex=0, blockOverrides=changed)
    assert completed(again) == [(2, {"n": 8})]
    *_, end = calls.call(executionId=run, stepIndex=None, runRemaining=True)
    assert end["result"] == {"total": 10}
    before = http.get(f"/flow-runs/{run}/trace").text
    calls.are_streamed_again()
    assert http.get(f"/flow-runs/{run}/trace").text == before


def test_a_walk_pauses_for_tools_and_a_call_that_is_sent_again_tells_its_own_pause(
    http: httpx2.Client,
) -> None:
    """In a mode that keeps no content, and after later pauses and the end of the run."""
    path = path_of("quiet-talk")
    calls, rounds = Keyed(http, path), 0
    *_, last = calls.call(message="hi", tools=TOOLS, runRemaining=True)
    while last["eventType"] == "step_paused_for_tool_calls":
        rounds += 1
        assert last["runId"] == last["executionId"]
        assert in_both_spellings(last)
        assert (last["stepId"], last["iterationsUsed"]) == ("ask", rounds)
        assert last["accumulatedOutputs"] == {"before": {"message": "hi"}}
        body = {name: last[name] for name in ("executionId", "stepIndex", "iterationsUsed")}
        body |= {"runRemaining": True, "tools": TOOLS, "toolCallMessages": []}
        assert wire.refusal(http.post(path, json=body)) == (400, "TOOL_RESULTS_MISMATCH")
        results = [{"toolCallId": call["id"], "output": f"r{rounds}"} for call in last["toolCalls"]]
        *_, last = calls.call(**body | {"toolCallMessages": [*last["toolCallMessages"], *results]})
    assert (rounds > 0, last["result"]) == (True, {"said": "hi"})
    calls.are_streamed_again()


def test_going_back_from_a_tool_pause_asks_anew(http: httpx2.Client) -> None:
    path = path_of("talk")
    found = wire.walked(http, path, message="hi", tools=TOOLS, runRemaining=True)
    run = found[0].data["executionId"]
    assert wire.types(found)[-1] == "step_paused_for_tool_calls"
    assert in_both_spellings(found[-1].data)
    again = wire.walked(http, path, executionId=run, stepIndex=0, runRemaining=True)
    assert wire.types(again)[0] == "step_retrying"
    assert again[0].data["error"]["code"] == "CANCELLED"
    assert wire.types(again)[-1] == "flow_completed"
    attempts = http.get(f"/flow-runs/{run}/steps/ask/trace?attempt=all").json()["attempts"]
    assert [(step["attempt"], step["status"]) for step in attempts] == [(1, "failed"), (2, "completed")]


@pytest.mark.parametrize("mode", MODES)
def test_a_caller_reads_its_outputs_from_step_output_in_every_mode(http: httpx2.Client, mode: str) -> None:
    """Whole and as they are, once before each `step_completed`; the log keeps what it keeps."""
    found = wire.walked(http, path_of(f"output-{mode.replace('_', '-')}"), runRemaining=True)
    whole = {"token": "sk-0123456789abcdef0123456789", "text": "x" * 2000}
    told = [frame for frame in found if frame.event == "step_output"]
    items = [{"item": 1, "index": 0}, {"item": 2, "index": 1}]
    assert [frame.data["outputData"] for frame in told] == [whole, *items]
    for frame in told:
        after = found[found.index(frame) + 1]
        assert after.event == "step_completed"
        assert frame.data["outputContext"] == frame.data["outputData"] == after.data["output"]
        assert frame.data["stepId"] == after.data["stepId"]
        assert frame.data.get("loopIndex") == after.data.get("loopIndex")
        assert frame.data["at"] <= after.data["at"]
    in_log = mode in ("redacted", "full")
    assert [frame.id != "" for frame in told] == [in_log] * 3
    assert [frame.data["seq"] > 0 for frame in told] == [in_log] * 3
    numbered = [frame.id for frame in found if frame.id]
    assert numbered == [str(n) for n in range(1, len(numbered) + 1)]
    log = wire.events_of(http, found[0].data["executionId"])
    assert [frame.id for frame in log] == numbered, "the trace's stream has the log alone"
    if mode != "full":
        assert "sk-0123456789abcdef0123456789" not in "".join(str(frame.data) for frame in log)


def place_of(frame: wire.Frame) -> tuple[Any, ...]:
    return tuple(frame.data[name] for name in ("stepId", "name", "stepIndex", "attempt"))


def test_a_cancelled_step_through_ends_with_a_step_error(http: httpx2.Client) -> None:
    """Also behind a `step_error` that the run went on after, which tells of another thing."""
    with ThreadPoolExecutor(1) as calls:
        walk = calls.submit(wire.walked, http, path_of("tolerant-walk"), runRemaining=True)
        (listed,) = eventually(lambda: http.get("/flow-runs?flow=tolerant-walk").json()["runs"])
        run = listed["id"]
        wire.until_event(http, run, "step_started", nth=2)
        assert http.delete(f"/flow-runs/{run}").status_code == 202
        found = walk.result()
    assert wire.types(found).count("step_error") == 2
    assert wire.types(found)[-2:] == ["step_error", "flow_cancelled"]
    told = found[-2]
    assert (told.id, told.data["seq"], told.data["error"]["code"]) == ("", 0, "CANCELLED")
    assert place_of(told) == ("hold", "Hold on", 1, 1)
    assert found[-1].data["reason"] in told.data["error"]["message"]
    log = wire.events_of(http, run)
    assert wire.types(log).count("step_error") == 1, "the log tells what happened and nothing else"
    assert [frame.id for frame in log] == [frame.id for frame in found if frame.id]


def bad_end(found: list[wire.Frame]) -> wire.Frame:
    """The one `step_error` of an answer, right before the event that ends the run."""
    assert wire.types(found)[-2:] == ["step_error", "flow_failed"]
    assert wire.types(found).count("step_error") == 1
    return found[-2]


COSTLY = """
slug: costly
steps:
  - {id: pay, type: llm, model: echo, prompt: hello}
  - id: l
    type: loop
    over: "[1]"
    steps: [{id: never, name: Never, type: passthrough}]
"""


def test_a_spent_budget_ends_the_stream_with_a_step_error() -> None:
    """Of the step that was not begun, which no event of the log has named before."""
    prices = {"echo": Price(input_per_mtok=Decimal(1000), output_per_mtok=Decimal(1000))}
    with served(COSTLY, prices=prices) as (server, http):
        wire.set_budget(server, "0.002")
        told = bad_end(wire.walked(http, path_of("costly"), runRemaining=True))
        assert place_of(told) == ("never", "Never", 1, 1)
        assert told.data["error"]["code"] == "RUN_FAILED"
        assert told.data["error"]["error"]["code"] == "CREDITS_EXHAUSTED"
        assert "budget" in told.data["error"]["message"]


@pytest.mark.parametrize("key", [False, True], ids=["plain", "under a key"])
def test_a_failure_of_the_engine_itself_ends_the_stream_with_a_step_error(
    http: httpx2.Client, monkeypatch: pytest.MonkeyPatch, key: bool
) -> None:
    """At the step that the run came to last, or at its first one where it came to none."""
    path, headers = path_of("output-full"), {"Idempotency-Key": str(uuid4())} if key else {}
    body = {"executionId": wire.walked(http, path)[0].data["executionId"], "stepIndex": 1}
    monkeypatch.setattr(Interpreter, "walk", AsyncMock(side_effect=LookupError("not of any step")))
    later = http.post(path, json=body, headers=headers)
    told = bad_end(wire.frames(later.text))
    assert (told.id, told.data["stepId"], told.data["stepIndex"]) == ("", "a", 0)
    assert told.data["error"]["code"] == "RUN_FAILED"
    assert told.data["error"]["error"]["code"] == "INTERNAL_ERROR"
    assert bad_end(wire.walked(http, path)).data["stepId"] == "a"
    assert not key or http.post(path, json=body, headers=headers).text == later.text


def test_outputs_that_are_too_many_to_be_held_come_from_the_store(
    server: RunningServer, http: httpx2.Client, faults: FaultyStore
) -> None:
    read_back = faults.calls("owed")
    steps = "\n".join(
        f'  - {{id: s{n}, type: code, code: \'return {{"t": "{n}" * 700000}}\'}}' for n in range(5)
    )
    server.push(f"slug: too-much\ncapture: off\nsteps:\n{steps}\n")
    with http.stream("POST", path_of("too-much"), json={"runRemaining": True}) as answer:
        eventually(lambda: http.get("/flow-runs?flow=too-much&status=completed").json()["runs"])
        found = wire.frames(answer.read().decode())
    told = [frame.data["outputData"]["t"] for frame in found if frame.event == "step_output"]
    assert told == [str(n) * 700_000 for n in range(5)]
    assert read_back
