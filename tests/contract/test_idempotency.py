"""`Idempotency-Key`: one call, one run, one answer, however often it is sent."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest

from runglass.engine.journal.resume import PausedRun
from runglass.errors import api_error
from runglass.store.records import IdempotencyKey
from runglass.store.sqlite.store import SqliteStore
from runglass.testing import RunningServer, running_server
from tests.contract.test_tool_calls import TALK, TOOLS, results_of, resumption
from tests.contract.wire import BROKEN, WORDS, frames, http_for, refusal
from tests.waiting import eventually

PATH = "/seq/acme/demo/words/execute"


def post(http: httpx2.Client, key: str, path: str = PATH, **body: Any) -> httpx2.Response:
    return http.post(path, json={"message": "a b", **body}, headers={"Idempotency-Key": key})


@pytest.mark.parametrize("path", [PATH, "/seq/acme/demo/words/jobs"])
def test_the_same_call_again_gets_the_first_answer(http: httpx2.Client, path: str) -> None:
    key = str(uuid4())
    first, second = post(http, key, path), post(http, key, path)
    assert first.status_code == second.status_code
    assert first.content == second.content
    assert post(http, str(uuid4()), path).json()["executionId"] != first.json()["executionId"]


def test_another_body_under_the_same_key_is_refused(http: httpx2.Client) -> None:
    key = str(uuid4())
    assert post(http, key).status_code == 200
    assert refusal(post(http, key, message="other")) == (409, "IDEMPOTENCY_MISMATCH")


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


def test_a_failed_run_is_not_run_again(http: httpx2.Client) -> None:
    key = str(uuid4())
    first, second = (post(http, key, "/seq/acme/demo/broken/execute") for _ in range(2))
    assert refusal(first) == refusal(second) == (500, "STEP_FAILED")
    assert first.json()["detail"]["executionId"] == second.json()["detail"]["executionId"]


@pytest.mark.parametrize("path", [PATH, "/seq/acme/demo/words/jobs", "/seq/acme/demo/broken/execute"])
def test_an_answer_that_the_run_tells_is_not_kept_beside_it(
    server: RunningServer, http: httpx2.Client, path: str
) -> None:
    key = str(uuid4())
    first, second = post(http, key, path), post(http, key, path)
    assert (first.status_code, first.content) == (second.status_code, second.content)

    async def kept() -> bytes | None:
        store = server.runtime.store
        call = await store.call((await store.ensure_project("acme", "demo")).id, key)
        assert call is not None
        return call.answer

    assert server.call(kept()) is None


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


def test_a_cancelled_run_is_told_as_before(server: RunningServer, http: httpx2.Client) -> None:
    key, path = str(uuid4()), "/seq/acme/demo/endless/execute"
    with ThreadPoolExecutor(1) as waiting, http_for(server, server.key) as caller:
        first = waiting.submit(post, caller, key, path, message=key)
        run = eventually(
            lambda: next(
                (
                    each["id"]
                    for each in http.get("/flow-runs", params={"flow": "endless"}).json()["runs"]
                    if each["status"] == "running"
                ),
                None,
            )
        )
        assert http.delete(f"/flow-runs/{run}").status_code == 202
        again = post(http, key, path, message=key)
        assert refusal(again) == (500, "STEP_FAILED")
        assert again.content == first.result().content


def test_each_segment_of_a_run_has_an_answer_of_its_own(server: RunningServer, http: httpx2.Client) -> None:
    server.push(TALK)
    path, headers = "/seq/acme/demo/talk/execute", [{"Idempotency-Key": str(uuid4())} for _ in range(2)]
    bodies: list[dict[str, Any]] = [{"message": "hi", "tools": TOOLS}]
    paused = http.post(path, json=bodies[0], headers=headers[0])
    bodies.append(resumption(paused.json(), results_of(paused.json())))
    done = http.post(path, json=bodies[1], headers=headers[1])
    assert [answer.json()["status"] for answer in (paused, done)] == ["tool_calls_required", "completed"]
    again = [http.post(path, json=body, headers=key) for body, key in zip(bodies, headers, strict=True)]
    assert [answer.content for answer in again] == [paused.content, done.content]


def test_a_call_that_was_stored_and_did_not_resume_its_run_is_made(
    server: RunningServer, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier versions stored the key of a call before they resumed the run."""
    server.push(TALK)
    path, headers = "/seq/acme/demo/talk/execute", {"Idempotency-Key": str(uuid4())}
    paused = http.post(path, json={"message": "hi", "tools": TOOLS}).json()
    body = resumption(paused, results_of(paused))

    async def store_the_key_alone(
        paused: PausedRun, *args: object, call: IdempotencyKey, **more: object
    ) -> None:
        values = (paused.run.project_id, *call, paused.run.id, paused.run.head)
        columns = "project_id, key, digest, run_id, head, created_at"
        insert = f"INSERT INTO call ({columns}) VALUES ($1, $2, $3, $4, $5, '2026')"
        store = server.runtime.store
        if isinstance(store, SqliteStore):
            await store.connections.write(lambda db: db.execute(insert, values))
        else:
            database = await asyncpg.connect(server.runtime.settings.store)
            await database.execute(insert, *values)
            await database.close()
        raise api_error("UNAVAILABLE", "the server stops")

    with monkeypatch.context() as patch:
        patch.setattr(server.runtime.engine, "resume", store_the_key_alone)
        assert refusal(http.post(path, json=body, headers=headers)) == (503, "UNAVAILABLE")
    first, second = (http.post(path, json=body, headers=headers) for _ in range(2))
    assert first.json()["status"] == "completed"
    assert second.content == first.content


def test_a_call_refused_before_its_run_may_be_sent_again(http: httpx2.Client) -> None:
    key = str(uuid4())
    assert refusal(http.post(PATH, json={}, headers={"Idempotency-Key": key})) == (400, "MISSING_MESSAGE")
    assert post(http, key).status_code == 200


def test_calls_at_the_same_instant_start_one_run(http: httpx2.Client) -> None:
    key = str(uuid4())
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: post(http, key, "/seq/acme/demo/brisk/execute"), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["executionId"] for answer in answers}) == 1
    assert len({answer.json()["flowId"] for answer in answers}) == 1


def test_a_key_has_a_sane_length(http: httpx2.Client) -> None:
    assert refusal(post(http, "x" * 256)) == (422, "INVALID_REQUEST")


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
