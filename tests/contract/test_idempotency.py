"""`Idempotency-Key`: one call, one run, one answer, however often it is sent."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from runglass.engine.journal.resume import PausedRun
from runglass.errors import api_error
from runglass.store.records import IdempotencyKey
from runglass.testing import RunningServer
from tests.contract import wire
from tests.contract.test_tool_calls import TALK, TOOLS, results_of, resumption
from tests.contract.test_unreadable import place_of
from tests.faulty_store import Held
from tests.servers import served, server_with
from tests.waiting import eventually

PATH = "/seq/acme/demo/words/execute"
SESSION = "0190b5f0-1c2d-7000-8000-000000000001"

server = server_with(*wire.FLOWS, TALK, capture="full")


def post(http: httpx2.Client, key: str, path: str = PATH, **body: Any) -> httpx2.Response:
    return http.post(path, json={"message": "a b", **body}, headers={"Idempotency-Key": key})


CALLS = {
    "words/execute": 200,
    "words/jobs": 202,
    "words/step": 200,
    "broken/execute": 500,
    "broken/step": 200,
}


@pytest.mark.parametrize(("call", "status"), CALLS.items())
def test_a_call_that_is_sent_again_gets_its_first_answer_which_says_so(
    http: httpx2.Client, call: str, status: int
) -> None:
    key, path = str(uuid4()), f"/seq/acme/demo/{call}"
    first, *others = (post(http, key, path) for _ in range(3))
    assert (first.status_code, first.headers.get("idempotent-replayed")) == (status, None)
    for again in others:
        assert (again.status_code, again.content) == (status, first.content)
        assert again.headers["idempotent-replayed"] == "true"
    assert post(http, str(uuid4()), path).content != first.content, "another key makes another run"


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        (PATH, '{"message":"other"}', {}),
        *(
            (PATH, f'{{"message":"a b","parameters":{parameters}}}', {})
            for parameters in ('{"x":2}', '{"x":1,"y":null}', '{"X":1}', '{"x":"1"}', '{"x":[1]}')
        ),
        (f"{PATH}?version=1", '{"message":"a b","parameters":{"x":1}}', {}),
        (PATH.replace("execute", "jobs"), '{"message":"a b","parameters":{"x":1}}', {}),
        (PATH, '{"message":"a b","parameters":{"x":1}}', {"X-Session-Id": SESSION}),
    ],
)
def test_something_else_under_the_same_key_is_refused(
    http: httpx2.Client, path: str, body: str, headers: dict[str, str]
) -> None:
    key = str(uuid4())
    assert post(http, key, parameters={"x": 1}).status_code == 200
    other = http.post(path, content=body, headers={"Idempotency-Key": key, **headers})
    assert wire.refusal(other) == (409, "IDEMPOTENCY_MISMATCH")


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


def test_answers_are_the_same_after_a_restart(tmp_path: Path) -> None:
    talk = "/seq/acme/demo/talk/execute"

    def answers(http: httpx2.Client) -> list[tuple[int, bytes]]:
        given = [post(http, call, f"/seq/acme/demo/{call}") for call in CALLS]
        pause = post(http, "pause", talk, tools=TOOLS)
        body = resumption(pause.json(), results_of(pause.json()))
        resumed = http.post(talk, json=body, headers={"Idempotency-Key": "resume"})
        assert resumed.json()["status"] == "completed", "of each segment there is an answer of its own"
        return [(answer.status_code, answer.content) for answer in (*given, pause, resumed)]

    with served(wire.WORDS, wire.BROKEN, TALK, data=tmp_path, capture="off") as (server, http):
        key, first = server.key, answers(http)
    assert [status for status, _ in first] == [*CALLS.values(), 200, 200]
    with served(data=tmp_path, capture="off") as (server, _), wire.http_for(server, key) as http:
        assert answers(http) == first


def test_a_call_that_was_stored_and_did_not_resume_its_run_is_made(
    server: RunningServer, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier versions stored the key of a call before they resumed the run."""
    path, headers = "/seq/acme/demo/talk/execute", {"Idempotency-Key": str(uuid4())}
    paused = http.post(path, json={"message": "hi", "tools": TOOLS}).json()
    body = resumption(paused, results_of(paused))

    async def store_the_key_alone(
        paused: PausedRun, *args: object, call: IdempotencyKey, **more: object
    ) -> None:
        columns = "project_id, key, digest, run_id, head, created_at"
        values = (paused.run.project_id, *call, paused.run.id, paused.run.head)
        insert = f"INSERT INTO call ({columns}) VALUES (?, ?, ?, ?, ?, '2026')"
        await asyncio.to_thread(place_of(server).execute, insert, *values)
        raise api_error("UNAVAILABLE", "the server stops")

    with monkeypatch.context() as patch:
        patch.setattr(server.runtime.engine, "resume", store_the_key_alone)
        assert wire.refusal(http.post(path, json=body, headers=headers)) == (503, "UNAVAILABLE")
    monkeypatch.setattr(server.runtime, "limits", server.runtime.limits._replace(noted_s=0.0))
    first, second = (http.post(path, json=body, headers=headers) for _ in range(2))
    assert first.json()["status"] == "completed"
    assert second.content == first.content


@pytest.mark.parametrize(("fields", "status"), [({"name": "Checked"}, 200), ({"nome": "Refused"}, 404)])
def test_a_repeat_waits_for_the_first_call_whose_flow_is_deleted_meanwhile(
    server: RunningServer, http: httpx2.Client, checking: Held, fields: dict[str, str], status: int
) -> None:
    server.push("slug: brief\nsteps: [{id: keep, type: passthrough}]")
    key, path = str(uuid4()), "/seq/acme/demo/brief/execute"
    sending = partial(post, http, key, path, blockOverrides={"keep": fields})
    with ThreadPoolExecutor(2) as waiting:
        first = waiting.submit(sending)
        checking.until_reached()
        assert http.delete("/flows/acme/demo/brief").status_code == 204
        again = waiting.submit(sending)
        eventually(lambda: again.done() or wire.requests_in(server) == 2)
        checking.let_go()
        assert again.result().status_code == status
        assert status != 200 or again.result().content == first.result().content
    broken = http.post(path, content=b"no JSON", headers={"Idempotency-Key": key})
    assert wire.refusal(broken) == (404, "FLOW_NOT_FOUND")


def test_a_call_that_was_refused_is_not_remembered(http: httpx2.Client) -> None:
    key = str(uuid4())
    empty = http.post(PATH, json={}, headers={"Idempotency-Key": key})
    assert wire.refusal(empty) == (400, "MISSING_MESSAGE")
    assert post(http, key).status_code == 200
    path, headers = "/seq/acme/demo/talk/execute", {"Idempotency-Key": str(uuid4())}
    paused = http.post(path, json={"message": "hi", "tools": TOOLS}).json()
    unknown = [{"toolCallId": "unknown", "output": "x"}]
    wrong, right = (resumption(paused, results) for results in (unknown, results_of(paused)))
    for _ in range(2):
        refused = http.post(path, json=wrong, headers=headers)
        assert wire.refusal(refused) == (400, "TOOL_RESULTS_MISMATCH")
    resumed = http.post(path, json=right, headers=headers)
    assert resumed.json()["status"] == "completed", "the run waited still"


def test_calls_at_the_same_instant_under_one_key_are_one_call(http: httpx2.Client) -> None:
    """First calls, tool results and every kind of step: three at once get what the one of them got."""

    def at_once(path: str, body: dict[str, Any]) -> httpx2.Response:
        headers = {"Idempotency-Key": str(uuid4())}
        with ThreadPoolExecutor(3) as senders:
            answers = list(senders.map(lambda _: http.post(path, json=body, headers=headers), range(3)))
        assert {(answer.status_code, answer.text) for answer in answers} == {(200, answers[0].text)}
        return answers[0]

    execute, step = "/seq/acme/demo/talk/execute", "/seq/acme/demo/talk/step"
    paused = at_once(execute, {"message": "hi", "tools": TOOLS}).json()
    assert at_once(execute, resumption(paused, results_of(paused))).json()["status"] == "completed"

    first = wire.frames(at_once(step, {"message": "hi", "tools": TOOLS}).text)
    run = first[0].data["executionId"]
    waiting = wire.frames(at_once(step, {"executionId": run, "stepIndex": 1, "tools": TOOLS}).text)[-1]
    assert waiting.event == "step_paused_for_tool_calls"
    turns = [*waiting.data["toolCallMessages"], *results_of(waiting.data)]
    body = {"executionId": run, "stepIndex": 1, "toolCallMessages": turns, "runRemaining": True}
    assert wire.frames(at_once(step, body).text)[-1].event == "flow_completed"
