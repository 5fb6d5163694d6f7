"""`step`: a walk through a flow, call by call, as streams."""

from typing import Any
from uuid import uuid4

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.test_tool_calls import TALK, TOOLS
from tests.contract.wire import Frame, frames, refusal

PATH = "/seq/acme/demo/walk/step"
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
QUIET_TALK = TALK.replace("slug: talk", "slug: quiet-talk\ncapture: 'off'")


@pytest.fixture(scope="module", autouse=True)
def flows(server: RunningServer) -> None:
    for flow in (WALK, TALK, STEER, QUIET_TALK):
        server.push(flow)
    server.push("slug: draft-only\nsteps: [{id: a, type: passthrough}]\n", publish=False)


def call(http: httpx2.Client, path: str = PATH, **body: Any) -> list[Frame]:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.text.startswith("retry: 1000\n")
    return frames(answer.text)


def types(found: list[Frame]) -> list[str]:
    return [frame.event for frame in found]


def first(http: httpx2.Client, **more: Any) -> tuple[str, list[Frame]]:
    found = call(http, parameters={"n": 1}, **more)
    return str(found[0].data["executionId"]), found


def test_a_walk_is_one_run_with_one_trace(http: httpx2.Client) -> None:
    run, found = first(http)
    assert types(found) == ["run_started", "step_started", "step_output", "step_completed", "step_paused"]
    started = found[0].data
    assert started["runId"] == run
    assert (started["stepCount"], started["triggerType"]) == (3, "step")
    assert found[3].data["output"] == {"n": 2}, "the caller gets its outputs whatever the log keeps"
    assert (found[4].data["stepId"], found[4].data["stepIndex"]) == ("a", 0), "the step just completed"
    assert http.get(f"/flow-runs/{run}/trace").json()["flowRun"]["status"] == "paused"
    second = call(http, executionId=run, stepIndex=1)
    assert types(second).count("step_completed") == 2
    assert types(second)[-2:] == ["loop_completed", "step_paused"]
    assert (second[-1].data["stepId"], second[-1].data["stepIndex"]) == ("l", 1)
    # Having counted completed steps, a client is ahead of the cursor: the server takes the smaller one.
    third = call(http, executionId=run, stepIndex=4)
    assert types(third)[-2:] == ["step_completed", "flow_completed"]
    assert third[-1].data["result"] == {"total": 4}
    assert refusal(http.post(PATH, json={"executionId": run, "stepIndex": 2})) == (409, "RUN_NOT_PAUSED")
    every = frames(http.get(f"/flow-runs/{run}/trace/stream").text)
    assert [frame.id for frame in every] == [str(n) for n in range(1, len(every) + 1)]
    trace = http.get(f"/flow-runs/{run}/trace").json()
    assert trace["flowRun"]["triggerType"] == "step"
    assert [(step["stepId"], step["status"]) for step in trace["steps"]] == [
        ("a", "completed"),
        ("inner", "completed"),
        ("inner", "completed"),
        ("z", "completed"),
    ]


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
    found = call(http, path)
    assert (types(found)[-1], found[0].data["version"]) == ("step_paused", 0)
    run = found[0].data["executionId"]
    server.push(DRAFT.format(slug="sketch", last="c", add=20), publish=False)
    fresh = call(http, path, runRemaining=True)
    assert fresh[-1].data["result"] == {"n": 21}, "a walk that begins now is one through the new draft"
    server.push(DRAFT.format(slug="sketch", last="d", add=30))
    pinned = http.post("/seq/acme/demo/sketch/v1/step", json={"executionId": run, "stepIndex": 1})
    assert refusal(pinned) == (409, "STALE_TREE"), "the run is none of version 1"
    ended = call(http, path, executionId=run, stepIndex=1)
    assert (types(ended)[-1], ended[-1].data["result"]) == ("flow_completed", {"n": 11})
    assert call(http, path)[0].data["version"] == 1


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
    assert refusal(http.post(PATH, json=body)) == expected


def test_a_whole_event_may_be_sent_back(http: httpx2.Client) -> None:
    run, found = first(http, pausedAtStep="a", client={"name": "other"})
    found = call(http, **{**found[-1].data, "stepIndex": found[-1].data["stepIndex"] + 1})
    assert types(found)[-2:] == ["loop_completed", "step_paused"]
    assert found[-1].data["executionId"] == run


def keyed(http: httpx2.Client, key: str, path: str = PATH, **body: Any) -> list[dict[str, Any]]:
    answer = http.post(path, json=body, headers={"Idempotency-Key": key})
    assert answer.status_code == 200, answer.text
    return [frame.data for frame in frames(answer.text)]


def test_a_call_that_is_sent_again_is_streamed_again_and_runs_nothing(http: httpx2.Client) -> None:
    """Byte for byte, whatever has come after it: a further attempt of its step, the end of the run."""
    unique = str(uuid4())
    answers = [keyed(http, f"{unique}-0", parameters={"n": 1})]
    run = answers[0][0]["executionId"]
    calls: list[dict[str, Any]] = [
        {"parameters": {"n": 1}},
        {"executionId": run, "stepIndex": 1},
        {"executionId": run, "stepIndex": 0, "blockOverrides": {"a": {"code": 'return {"n": 8}'}}},
        {"executionId": run, "stepIndex": 1, "runRemaining": True},
    ]
    answers += [keyed(http, f"{unique}-{index}", **calls[index]) for index in (1, 2, 3)]
    assert [
        event["output"] for answer in answers for event in answer if event["eventType"] == "step_completed"
    ] == [
        {"n": 2},
        {"item": 1, "index": 0},
        {"item": 2, "index": 1},
        {"n": 8},
        {"item": 1, "index": 0},
        {"item": 2, "index": 1},
        {"total": 10},
    ]
    assert [event["attempt"] for event in answers[2] if event["eventType"] == "step_completed"] == [2]
    assert answers[-1][-1]["result"] == {"total": 10}
    before = http.get(f"/flow-runs/{run}/trace").text
    for index, answer in enumerate(answers):
        assert keyed(http, f"{unique}-{index}", **calls[index]) == answer
    assert http.get(f"/flow-runs/{run}/trace").text == before


def test_a_walk_pauses_for_tools_and_a_call_that_is_sent_again_tells_its_own_pause(
    http: httpx2.Client,
) -> None:
    """In a mode that keeps no content, and after later pauses and the end of the run."""
    path, unique = "/seq/acme/demo/quiet-talk/step", str(uuid4())
    body: dict[str, Any] = {"message": "hi", "tools": TOOLS, "runRemaining": True}
    calls, answers = [body], [keyed(http, f"{unique}-0", path, **body)]
    while answers[-1][-1]["eventType"] == "step_paused_for_tool_calls":
        paused = answers[-1][-1]
        assert paused["runId"] == paused["executionId"]
        assert (paused["stepId"], paused["iterationsUsed"]) == ("ask", len(calls))
        assert paused["accumulatedOutputs"] == {"before": {"message": "hi"}}
        body = {name: paused[name] for name in ("executionId", "stepIndex", "iterationsUsed")}
        body |= {"runRemaining": True, "tools": TOOLS, "toolCallMessages": []}
        assert refusal(http.post(path, json=body)) == (400, "TOOL_RESULTS_MISMATCH")
        results = [{"toolCallId": call["id"], "output": f"r{len(calls)}"} for call in paused["toolCalls"]]
        calls.append(body | {"toolCallMessages": [*paused["toolCallMessages"], *results]})
        answers.append(keyed(http, f"{unique}-{len(calls) - 1}", path, **calls[-1]))
    assert answers[-1][-1]["result"] == {"said": "hi"}
    assert len(calls) > 1
    for index, answer in enumerate(answers):
        assert keyed(http, f"{unique}-{index}", path, **calls[index]) == answer


def test_going_back_from_a_tool_pause_asks_anew(http: httpx2.Client) -> None:
    path = "/seq/acme/demo/talk/step"
    found = call(http, path, message="hi", tools=TOOLS, runRemaining=True)
    run = found[0].data["executionId"]
    assert types(found)[-1] == "step_paused_for_tool_calls"
    again = call(http, path, executionId=run, stepIndex=0, runRemaining=True)
    assert types(again)[0] == "step_retrying"
    assert again[0].data["error"]["code"] == "CANCELLED"
    assert types(again)[-1] == "flow_completed"
    attempts = http.get(f"/flow-runs/{run}/steps/ask/trace?attempt=all").json()["attempts"]
    assert [(step["attempt"], step["status"]) for step in attempts] == [(1, "failed"), (2, "completed")]


def test_a_later_call_without_an_index_continues_at_the_position_of_the_run(http: httpx2.Client) -> None:
    run, _ = first(http)
    assert call(http, executionId=run)[-1].data["stepIndex"] == 1
    assert types(call(http, executionId=run, stepIndex=None))[-1] == "flow_completed"


@pytest.mark.parametrize("outputs", [{"a": 5}, {"a": "x"}, {"a": [1]}, [1]])
def test_outputs_that_are_no_objects_are_refused_and_the_run_waits_on(
    http: httpx2.Client, outputs: Any
) -> None:
    run, _ = first(http)
    answer = http.post(PATH, json={"executionId": run, "stepIndex": 1, "accumulatedOutputs": outputs})
    assert refusal(answer, "accumulatedOutputs") == (422, "INVALID_REQUEST")
    assert http.get(f"/flow-runs/{run}/trace").json()["flowRun"]["status"] == "paused"


STEER_PATH = "/seq/acme/demo/steer/step"
STEER = """
slug: steer
inputs: {type: object, properties: {n: {type: integer}}}
steps:
  - {id: a, type: passthrough}
  - id: each
    type: loop
    over: over
    input: {over: ["x", "y"]}
    steps:
      - {id: inner, type: passthrough, input: {item: "{{ item }}", by: template}}
  - {id: z, type: passthrough, input: {said: template, kept: template}}
"""


def outputs(http: httpx2.Client, **body: Any) -> dict[str, list[Any]]:
    """What each step gave in one call, by step id."""
    found: dict[str, list[Any]] = {}
    for frame in call(http, STEER_PATH, **body):
        if frame.event == "step_completed":
            found.setdefault(frame.data["stepId"], []).append(frame.data["output"])
    return found


def begin(http: httpx2.Client, **body: Any) -> str:
    return str(call(http, STEER_PATH, **body)[0].data["executionId"])


def test_input_overrides_of_a_named_step_hold_whenever_it_runs(http: httpx2.Client) -> None:
    """Over what its own template says, in each iteration, in whichever call it runs; the rest stays."""
    given = {"z": {"said": "by me"}, "inner": {"by": "me"}}
    body = {"parameters": {"n": 1}, "inputOverrides": given}
    run = begin(http, **body)
    assert outputs(http, executionId=run, stepIndex=1, inputOverrides=given) == {
        "inner": [{"item": "x", "by": "me"}, {"item": "y", "by": "me"}]
    }
    assert outputs(http, executionId=run, stepIndex=2, inputOverrides=given) == {
        "z": [{"said": "by me", "kept": "template"}]
    }
    whole = outputs(http, **body, runRemaining=True)
    assert whole["a"] == [{"n": 1}]
    assert whole["inner"][1] == {"item": "y", "by": "me"}
    assert whole["z"] == [{"said": "by me", "kept": "template"}]


def test_other_input_overrides_are_for_the_first_step_of_the_segment(http: httpx2.Client) -> None:
    """So does the id of a step beside which no object stands."""
    given = {"n": 2, "z": "no object", "other": {"deep": 1}}
    assert outputs(http, parameters={"n": 1}, inputOverrides=given) == {"a": [given]}
    both = {"n": 2, "a": {"n": 3}}
    assert outputs(http, parameters={"n": 1}, inputOverrides=both) == {"a": [{"n": 3}]}


def test_a_call_without_input_overrides_keeps_the_earlier_ones(http: httpx2.Client) -> None:
    run = begin(http, inputOverrides={"n": 5, "z": {"said": "before"}})
    call(http, STEER_PATH, executionId=run, stepIndex=1)
    assert outputs(http, executionId=run, stepIndex=2, inputOverrides=None) == {
        "z": [{"said": "before", "kept": "template"}]
    }
    run = begin(http, inputOverrides={"z": {"said": "before"}})
    call(http, STEER_PATH, executionId=run, stepIndex=1, inputOverrides={"z": {"kept": "later"}})
    assert outputs(http, executionId=run, stepIndex=2) == {"z": [{"said": "template", "kept": "later"}]}
    run = begin(http, inputOverrides={"z": {"said": "before"}})
    assert outputs(http, executionId=run, stepIndex=1, inputOverrides={}, runRemaining=True)["z"] == [
        {"said": "template", "kept": "template"}
    ]
