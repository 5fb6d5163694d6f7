"""`Idempotency-Key`: one call, one run, one answer, however often it is sent."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from runglass.testing import RunningServer, running_server
from tests.contract.test_tool_calls import TALK, TOOLS
from tests.contract.wire import BROKEN, WORDS, frames, http_for, refusal

PATH = "/seq/acme/demo/words/execute"


def post(http: httpx2.Client, key: str, path: str = PATH, **body: Any) -> httpx2.Response:
    return http.post(path, json={"message": "a b", **body}, headers={"Idempotency-Key": key})


def test_the_same_body_in_another_notation_is_the_same_call(http: httpx2.Client) -> None:
    headers = {"Idempotency-Key": str(uuid4())}
    first, *others = [
        http.post(PATH, content=body, headers=headers)
        for body in (
            b'{"message":"a b","parameters":{"times":1,"more":{"x":1,"y":null}},"blockOverrides":{}}',
            b'{ "block_overrides": {}, "parameters": {"more": {"y": null, "x": 1}, "times": 1},'
            b' "message": "a b"}',
            b'{"trace":null,"message":"\\u0061 b","parameters":{"times":1,"more":{"x":1,"y":null}},'
            b'"blockOverrides":{}}',
        )
    ]
    assert first.status_code == 200
    assert {other.content for other in others} == {first.content}


@pytest.mark.parametrize(
    "parameters", ['{"x": 2}', '{"x": 1, "y": null}', '{"X": 1}', '{"x": "1"}', '{"x": [1]}']
)
def test_bodies_that_a_flow_could_tell_apart_are_different_calls(
    http: httpx2.Client, parameters: str
) -> None:
    headers = {"Idempotency-Key": str(uuid4())}
    path = "/seq/acme/demo/anything/execute"
    assert http.post(path, json={"parameters": {"x": 1}}, headers=headers).status_code == 200
    other = http.post(path, content=f'{{"parameters": {parameters}}}', headers=headers)
    assert refusal(other) == (409, "IDEMPOTENCY_MISMATCH")


def test_answers_are_the_same_after_a_restart(tmp_path: Path) -> None:
    paths = ["words/execute", "words/jobs", "words/step", "broken/execute", "broken/step", "talk/execute"]

    def answers(server: RunningServer, key: str) -> list[tuple[int, bytes]]:
        given = []
        with http_for(server, key) as http:
            for path in paths:
                body = {"message": "a b"} | ({"tools": TOOLS} if "talk" in path else {})
                headers = {"Idempotency-Key": path}
                answer = http.post(f"/seq/acme/demo/{path}", json=body, headers=headers)
                given.append((answer.status_code, answer.content))
        return given

    with running_server(data=tmp_path, capture="off") as server:
        for flow in (WORDS, BROKEN, TALK):
            server.push(flow)
        key, first = server.key, answers(server, server.key)
    assert [status for status, _ in first] == [200, 202, 200, 500, 200, 200]
    with running_server(data=tmp_path, capture="off") as server:
        assert answers(server, key) == first


def test_an_answer_that_an_older_program_has_kept_is_given_again(
    server: RunningServer, http: httpx2.Client
) -> None:
    key = str(uuid4())
    first = post(http, key)

    async def keep() -> None:
        store = server.runtime.store
        project = await store.ensure_project("acme", "demo")
        await store.answer_call(project.id, key, status=200, answer=b'{"as":"before"}')

    server.call(keep())
    second = post(http, key)
    assert (first.status_code, second.content) == (200, b'{"as":"before"}')
    assert second.headers["idempotent-replayed"] == "true"


def test_a_call_refused_before_its_run_may_be_sent_again(http: httpx2.Client) -> None:
    key = str(uuid4())
    refused = http.post(PATH, json={}, headers={"Idempotency-Key": key})
    assert refusal(refused) == (400, "MISSING_MESSAGE")
    assert post(http, key).status_code == 200


def test_calls_at_the_same_instant_under_one_key_are_one_call(server: RunningServer) -> None:
    """First calls, tool results and every kind of step: three at once get what the one of them got."""
    server.push(TALK)
    headers = {"Authorization": f"Bearer {server.key}"}

    def at_once(path: str, body: dict[str, Any]) -> list[httpx2.Response]:
        key = str(uuid4())

        def send(_: int) -> httpx2.Response:
            with httpx2.Client(base_url=server.base_url, headers={**headers, "Idempotency-Key": key}) as http:
                return http.post(path, json=body, timeout=30)

        with ThreadPoolExecutor(3) as senders:
            answers = list(senders.map(send, range(3)))
        assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
        assert len({answer.text for answer in answers}) == 1, [answer.text for answer in answers]
        return answers

    execute, step = "/seq/acme/demo/talk/execute", "/seq/acme/demo/talk/step"
    paused = at_once(execute, {"message": "hi", "tools": TOOLS})[0].json()
    assert paused["status"] == "tool_calls_required"
    results = [{"toolCallId": call["id"], "output": "x"} for call in paused["toolCalls"]]
    turns = [*paused["toolCallMessages"], *results]
    assert at_once(execute, {**paused, "toolCallMessages": turns})[0].json()["status"] == "completed"

    first = frames(at_once(step, {"message": "hi", "tools": TOOLS})[0].text)
    run = first[0].data["executionId"]
    second = frames(at_once(step, {"executionId": run, "stepIndex": 1, "tools": TOOLS})[0].text)
    waiting = second[-1].data
    assert second[-1].event == "step_paused_for_tool_calls"
    results = [{"toolCallId": call["id"], "output": "x"} for call in waiting["toolCalls"]]
    turns = [*waiting["toolCallMessages"], *results]
    body = {"executionId": run, "stepIndex": 1, "toolCallMessages": turns, "runRemaining": True}
    assert frames(at_once(step, body)[0].text)[-1].event == "flow_completed"


def test_a_refused_resume_is_refused_again(server: RunningServer) -> None:
    server.push(TALK)
    with http_for(server, server.key) as http:
        paused = http.post("/seq/acme/demo/talk/execute", json={"message": "hi", "tools": TOOLS}).json()
        wrong = {**paused, "toolCallMessages": [{"toolCallId": "unknown", "output": "x"}]}
        headers = {"Idempotency-Key": str(uuid4())}
        answers = [http.post("/seq/acme/demo/talk/execute", json=wrong, headers=headers) for _ in range(2)]
        assert [refusal(answer) for answer in answers] == [(400, "TOOL_RESULTS_MISMATCH")] * 2
        results = [{"toolCallId": call["id"], "output": "x"} for call in paused["toolCalls"]]
        done = http.post("/seq/acme/demo/talk/execute", json={**paused, "toolCallMessages": results})
        assert done.json()["status"] == "completed", "the run waits still"


def test_the_same_call_for_another_session_is_another_call(http: httpx2.Client) -> None:
    headers = {"Idempotency-Key": str(uuid4()), "X-Session-Id": str(uuid4())}
    first = http.post(PATH, json={"message": "a b"}, headers=headers)
    assert first.status_code == 200
    assert http.post(PATH, json={"message": "a b"}, headers=headers).content == first.content
    other = http.post(PATH, json={"message": "a b"}, headers={**headers, "X-Session-Id": str(uuid4())})
    assert refusal(other) == (409, "IDEMPOTENCY_MISMATCH")
