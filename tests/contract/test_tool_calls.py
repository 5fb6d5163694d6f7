"""`execute` with a caller's tools: pause, resume, several rounds, and what can be wrong with it."""

import json
import uuid
from typing import Any

import httpx2
import pytest

from runglass.engine.steps.attempt_runner import MAX_TOOL_ITERATIONS
from runglass.testing import RunningServer
from tests.contract.wire import detail, frames, refusal

PATH = "/seq/acme/demo/talk/execute"
TALK = """
slug: talk
steps:
  - {id: before, type: passthrough}
  - {id: ask, type: llm, model: echo, prompt: "{{ message }}"}
  - {id: after, type: code, code: 'return {"said": text}'}
"""
ONE_AT_A_TIME = """
slug: one-at-a-time
steps:
  - {id: ask, type: llm, model: echo, prompt: "{{ message }}", settings: {parallel_tool_calls: false}}
"""
INSIDE = """
slug: inside
steps:
  - {id: l, type: loop, over: '[1]', steps: [{id: a, type: llm, model: echo, prompt: x}]}
"""
TWO = """
slug: two
steps:
  - {id: first, type: llm, model: echo, prompt: "{{ message }}"}
  - {id: second, type: llm, model: echo, prompt: "{{ text }}"}
"""
WITHOUT = "slug: without\nsteps: [{id: a, type: llm, model: echo, prompt: x, tools: false}]\n"


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


TOOLS = [tool("weather"), tool("time")]


@pytest.fixture(scope="module", autouse=True)
def flows(server: RunningServer) -> None:
    for flow in (TALK, ONE_AT_A_TIME, INSIDE, TWO, WITHOUT):
        server.push(flow)


def paused(http: httpx2.Client, path: str = PATH, **more: Any) -> dict[str, Any]:
    answer = http.post(path, json={"message": "hello", "tools": TOOLS, **more})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert body["status"] == "tool_calls_required"
    return body


def resumption(body: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, Any]:
    kept = ("executionId", "pausedAtStep", "iterationsUsed", "accumulatedOutputs")
    return {
        **{name: body[name] for name in kept},
        "tools": TOOLS,
        "toolCallMessages": [*body["toolCallMessages"], *results],
    }


def results_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "tool", "toolCallId": call["id"], "content": "sunny"} for call in body["toolCalls"]]


def test_a_pause_has_the_fields_of_the_contract(http: httpx2.Client) -> None:
    body = paused(http)
    assert set(body) == {
        *("status", "executionId", "pausedAtStep", "iterationsUsed", "toolCallMessages", "toolCalls"),
        *("accumulatedOutputs", "flowId", "blockCount"),
    }
    assert [call["function"]["name"] for call in body["toolCalls"]] == ["weather", "time"]
    assert all(call["type"] == "function" and call["id"] for call in body["toolCalls"])
    assert all(isinstance(call["function"]["arguments"], str) for call in body["toolCalls"])
    assert body["accumulatedOutputs"] == {"before": {"message": "hello"}}
    assert (body["pausedAtStep"], body["iterationsUsed"], body["blockCount"]) == ("ask", 1, 3)
    trace = http.get(f"/flow-runs/{body['executionId']}/trace").json()
    assert trace["flowRun"]["status"] == "paused"


def test_a_pause_and_what_comes_after_it_name_the_session_in_which_the_run_was_started(
    http: httpx2.Client,
) -> None:
    session, other, key = (str(uuid.uuid4()) for _ in range(3))
    answer = http.post(PATH, json={"message": "hello", "tools": TOOLS}, headers={"X-Session-Id": session})
    body = answer.json()
    assert body["sessionId"] == session
    for _ in range(2):
        headers = {"X-Session-Id": other, "Idempotency-Key": key}
        answer = http.post(PATH, json=resumption(body, results_of(body)), headers=headers)
        assert (answer.json()["status"], answer.json()["sessionId"]) == ("completed", session)


def test_a_paused_run_goes_on_under_its_id_and_its_trace_shows_every_turn(http: httpx2.Client) -> None:
    body = paused(http, trace=True)
    answer = http.post(PATH, json=resumption(body, results_of(body)))
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "completed"
    assert answer.json()["executionId"] == body["executionId"]
    assert answer.json()["result"] == {"said": "hello"}
    text = http.get(f"/flow-runs/{body['executionId']}/trace/stream").text
    assert text.count("event: step_paused_for_tool_calls") == 1
    assert '"toolResults"' in text
    assert text.count("event: run_started") == 1


def test_messages_of_a_pause_come_in_both_spellings(http: httpx2.Client) -> None:
    body = paused(http, trace=True)
    (said,) = [turn for turn in body["toolCallMessages"] if turn["role"] == "assistant"]
    assert said["tool_calls"] == said["toolCalls"] == body["toolCalls"]
    again = paused(http, "/seq/acme/demo/one-at-a-time/execute")
    asked = resumption(again, results_of(again))
    again = http.post("/seq/acme/demo/one-at-a-time/execute", json=asked).json()
    (result,) = [turn for turn in again["toolCallMessages"] if turn["role"] == "tool"]
    assert result["tool_call_id"] == result["toolCallId"]
    with http.stream("GET", f"/flow-runs/{body['executionId']}/trace/stream") as live:
        lines = live.iter_lines()
        assert "event: step_paused_for_tool_calls" in lines
        told = json.loads(next(lines).removeprefix("data: "))
    assert told["toolCallMessages"] == body["toolCallMessages"]
    for key in ({}, {"Idempotency-Key": "both-spellings"}):
        asked = {"message": "hello", "tools": TOOLS, "runRemaining": True}
        stream = http.post("/seq/acme/demo/talk/step", json=asked, headers=key).text
        pause = frames(stream)[-1].data
        (said,) = [turn for turn in pause["toolCallMessages"] if turn["role"] == "assistant"]
        assert said["tool_calls"] == said["toolCalls"] == pause["toolCalls"] != []


def test_several_rounds_of_one_call_each(http: httpx2.Client) -> None:
    path = "/seq/acme/demo/one-at-a-time/execute"
    body, rounds = paused(http, path), 0
    while body["status"] == "tool_calls_required":
        rounds += 1
        assert (len(body["toolCalls"]), body["iterationsUsed"]) == (1, rounds)
        body = http.post(path, json=resumption(body, results_of(body))).json()
    assert rounds == 2
    assert body["result"] == {"text": "hello"}


@pytest.mark.parametrize(
    ("kept", "step", "code"),
    [
        (0, "ask", "TOOL_RESULTS_MISMATCH"),
        (1, "ask", "TOOL_RESULTS_MISMATCH"),
        (2, "before", "PAUSED_STEP_INVALID"),
    ],
)
def test_a_missing_result_or_another_step_is_refused_and_the_run_still_waits(
    http: httpx2.Client, kept: int, step: str, code: str
) -> None:
    body = paused(http)
    answer = http.post(PATH, json=resumption(body, results_of(body)[:kept]) | {"pausedAtStep": step})
    assert refusal(answer) == (400, code)
    assert detail(answer)["executionId"] == body["executionId"]
    assert http.post(PATH, json=resumption(body, results_of(body))).json()["status"] == "completed"


@pytest.mark.parametrize(
    ("slug", "code"),
    [
        ("inside", "TOOLS_IN_NON_SEQUENTIAL_STEP"),
        ("without", "TOOLS_NOT_ENABLED"),
        ("anything", "TOOLS_NOT_ENABLED"),
    ],
)
def test_a_flow_that_cannot_take_tools_says_so(http: httpx2.Client, slug: str, code: str) -> None:
    path = f"/seq/acme/demo/{slug}/execute"
    assert refusal(http.post(path, json={"message": "a", "tools": TOOLS})) == (400, code)
    assert refusal(http.post(path, json={"message": "a", "tools": "time"})) == (400, "TOOLS_INVALID")


@pytest.mark.parametrize("choice", ["time", {"type": "function", "function": {"name": "time"}}])
def test_tool_choice_of_one_function_calls_that_one(http: httpx2.Client, choice: Any) -> None:
    body = paused(http, toolChoice=choice)
    assert [call["function"]["name"] for call in body["toolCalls"]] == ["time"]
    again = http.post(PATH, json=resumption(body, results_of(body)) | {"toolChoice": choice}).json()
    assert [call["function"]["name"] for call in again["toolCalls"]] == ["time"], "it is forced every turn"
    done = http.post(PATH, json=resumption(again, results_of(again)) | {"toolChoice": "none"})
    assert done.json()["result"] == {"said": "hello"}


def test_a_model_that_must_call_ends_the_run_by_the_limit_of_iterations(http: httpx2.Client) -> None:
    body = paused(http, toolChoice="required")
    rounds = 0
    while True:
        asked = resumption(body, results_of(body)) | {"toolChoice": "required"}
        answer = http.post(PATH, json=asked)
        rounds += 1
        if answer.status_code != 200:
            break
        body = answer.json()
    assert rounds == MAX_TOOL_ITERATIONS
    assert refusal(answer) == (409, "TOOL_ITERATION_LIMIT")
    assert detail(answer)["stepId"] == "ask"
    run = detail(answer)["executionId"]
    assert http.get(f"/flow-runs/{run}/trace").json()["flowRun"]["status"] == "failed"


def test_earlier_turns_go_ahead_of_the_first_prompt(http: httpx2.Client) -> None:
    turns = [
        {"role": "user", "content": "one two"},
        {"role": "assistant", "content": "three"},
        {"role": "user", "content": "four"},
    ]
    body = http.post(PATH, json={"messages": turns}).json()
    assert body["result"] == {"said": "four"}
    steps = http.get(f"/flow-runs/{body['executionId']}/trace").json()["steps"]
    assert steps[1]["tokens"] == {"prompt": 4, "completion": 1, "total": 5}


def test_a_resume_without_tools_offers_those_of_the_start_to_later_steps_too(http: httpx2.Client) -> None:
    path = "/seq/acme/demo/two/execute"
    first = paused(http, path)
    later = resumption(first, results_of(first))
    del later["tools"]
    answer = http.post(path, json=later)
    second = answer.json()
    assert (answer.status_code, second.get("pausedAtStep")) == (200, "second"), answer.text
    assert {call["function"]["name"] for call in second["toolCalls"]} == {"weather", "time"}
    last = resumption(second, results_of(second))
    del last["tools"]
    assert http.post(path, json=last).json()["status"] == "completed"


@pytest.mark.parametrize("verb", ["execute", "step"])
def test_a_choice_of_the_resume_holds_for_the_tools_of_the_start(http: httpx2.Client, verb: str) -> None:
    path = "/seq/acme/demo/two/execute"
    first = paused(http, path, toolChoice={"type": "function", "function": {"name": "time"}})
    assert [call["function"]["name"] for call in first["toolCalls"]] == ["time"]
    later = {**resumption(first, results_of(first)), "toolChoice": "none"}
    del later["tools"]
    if verb == "execute":
        assert http.post(path, json=later).json()["status"] == "completed"
        return
    del later["pausedAtStep"]
    answer = http.post("/seq/acme/demo/two/step", json={**later, "runRemaining": True})
    assert frames(answer.text)[-1].event == "flow_completed", answer.text
