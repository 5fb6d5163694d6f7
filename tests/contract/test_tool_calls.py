"""`execute` with a caller's tools: pause, resume, several rounds, and what can be wrong with it."""

import uuid
from typing import Any

import httpx2
import pytest

from runglass.engine.steps.attempt_runner import MAX_TOOL_ITERATIONS
from tests.contract.wire import ANYTHING, detail, events_of, frames, refusal, trace_of
from tests.servers import server_with

PATH = "/seq/acme/demo/talk/execute"
ONE_AT_A_TIME_PATH = "/seq/acme/demo/one-at-a-time/execute"
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

server = server_with(ANYTHING, TALK, ONE_AT_A_TIME, INSIDE, TWO, WITHOUT, capture="full")


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


def resumed(
    http: httpx2.Client, body: dict[str, Any], *left_out: str, path: str = PATH, **more: Any
) -> httpx2.Response:
    """The answer to a call that brings all results, without the fields that are left out."""
    asked = resumption(body, results_of(body)) | more
    return http.post(path, json={name: value for name, value in asked.items() if name not in left_out})


def called(body: dict[str, Any]) -> list[str]:
    """The functions that the model asks for."""
    return [call["function"]["name"] for call in body["toolCalls"]]


def in_both_spellings(pause: dict[str, Any]) -> bool:
    """Whether the model's calls stand so in the messages of the pause."""
    (said,) = [turn for turn in pause["toolCallMessages"] if turn["role"] == "assistant"]
    return bool(said["tool_calls"] == said["toolCalls"] == pause["toolCalls"] != [])


def test_a_pause_has_the_fields_of_the_contract_and_its_run_goes_on_under_its_id(http: httpx2.Client) -> None:
    body = paused(http, trace=True)
    assert set(body) == {
        *("status", "executionId", "pausedAtStep", "iterationsUsed", "toolCallMessages", "toolCalls"),
        *("accumulatedOutputs", "flowId", "blockCount"),
    }
    assert called(body) == ["weather", "time"]
    assert in_both_spellings(body)
    assert all(call["type"] == "function" and call["id"] for call in body["toolCalls"])
    assert all(isinstance(call["function"]["arguments"], str) for call in body["toolCalls"])
    assert body["accumulatedOutputs"] == {"before": {"message": "hello"}}
    assert (body["pausedAtStep"], body["iterationsUsed"], body["blockCount"]) == ("ask", 1, 3)
    run = body["executionId"]
    assert trace_of(http, run)["flowRun"]["status"] == "paused"
    done = resumed(http, body).json()
    assert (done["status"], done["executionId"], done["result"]) == ("completed", run, {"said": "hello"})
    log = events_of(http, run)
    (told,) = [frame.data for frame in log if frame.event == "step_paused_for_tool_calls"]
    assert told["toolCallMessages"] == body["toolCallMessages"]
    assert any("toolResults" in frame.data.get("inputData", ()) for frame in log)
    assert [frame.event for frame in log].count("run_started") == 1


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


def test_several_rounds_of_one_call_each_with_their_results_in_both_spellings(http: httpx2.Client) -> None:
    body, rounds = paused(http, ONE_AT_A_TIME_PATH), 0
    while body["status"] == "tool_calls_required":
        rounds += 1
        assert (len(body["toolCalls"]), body["iterationsUsed"]) == (1, rounds)
        results = [turn for turn in body["toolCallMessages"] if turn["role"] == "tool"]
        assert len(results) == rounds - 1
        assert all(turn["tool_call_id"] == turn["toolCallId"] for turn in results)
        body = resumed(http, body, path=ONE_AT_A_TIME_PATH).json()
    assert rounds == 2
    assert body["result"] == {"text": "hello"}


def test_another_step_than_the_one_that_waits_is_refused_and_the_run_still_waits(http: httpx2.Client) -> None:
    body = paused(http)
    answer = resumed(http, body, pausedAtStep="before")
    assert refusal(answer) == (400, "PAUSED_STEP_INVALID")
    assert detail(answer)["executionId"] == body["executionId"]
    assert resumed(http, body).json()["status"] == "completed"


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
    assert called(body) == ["time"]
    again = resumed(http, body, toolChoice=choice).json()
    assert called(again) == ["time"], "it is forced every turn"
    assert resumed(http, again, toolChoice="none").json()["result"] == {"said": "hello"}


def test_a_model_that_must_call_ends_the_run_by_the_limit_of_iterations(http: httpx2.Client) -> None:
    body = paused(http, toolChoice="required")
    for _ in range(MAX_TOOL_ITERATIONS - 1):
        body = resumed(http, body, toolChoice="required").json()
    answer = resumed(http, body, toolChoice="required")
    assert refusal(answer) == (409, "TOOL_ITERATION_LIMIT")
    assert detail(answer)["stepId"] == "ask"
    assert trace_of(http, detail(answer)["executionId"])["flowRun"]["status"] == "failed"


def test_earlier_turns_go_ahead_of_the_first_prompt(http: httpx2.Client) -> None:
    turns = [
        {"role": "user", "content": "one two"},
        {"role": "assistant", "content": "three"},
        {"role": "user", "content": "four"},
    ]
    body = http.post(PATH, json={"messages": turns}).json()
    assert body["result"] == {"said": "four"}
    steps = trace_of(http, body["executionId"])["steps"]
    assert steps[1]["tokens"] == {"prompt": 4, "completion": 1, "total": 5}


def test_a_resume_without_tools_offers_those_of_the_start_to_later_steps_too(http: httpx2.Client) -> None:
    path = "/seq/acme/demo/two/execute"
    second = resumed(http, paused(http, path), "tools", path=path).json()
    assert second["pausedAtStep"] == "second"
    assert called(second) == ["weather", "time"]
    assert resumed(http, second, "tools", path=path).json()["status"] == "completed"


@pytest.mark.parametrize("verb", ["execute", "step"])
def test_a_choice_of_the_resume_holds_for_the_tools_of_the_start(http: httpx2.Client, verb: str) -> None:
    first = paused(http, "/seq/acme/demo/two/execute", toolChoice=TOOLS[1])
    assert called(first) == ["time"]
    path = f"/seq/acme/demo/two/{verb}"
    if verb == "execute":
        done = resumed(http, first, "tools", path=path, toolChoice="none")
        assert done.json()["status"] == "completed"
    else:
        done = resumed(http, first, "tools", "pausedAtStep", path=path, toolChoice="none", runRemaining=True)
        assert frames(done.text)[-1].event == "flow_completed", done.text
