"""A failed call that is sent again without an Idempotency-Key: the first repeat costs nothing."""

from typing import Any
from uuid import uuid4

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.test_tool_calls import TOOLS, results_of, resumption
from tests.contract.wire import detail, http_for, refusal

PATH = "/seq/acme/demo/broken/execute"
FALLS = """
slug: falls
steps:
  - {id: ask, type: llm, model: echo, prompt: "{{ message }}"}
  - {id: bad, type: code, code: 'raise ValueError("it broke")'}
"""


def failed(http: httpx2.Client, path: str = PATH, **body: Any) -> tuple[str, bool]:
    """The run that the answer speaks of, and whether the answer was given before."""
    answer = http.post(path, json=body)
    assert refusal(answer) == (500, "STEP_FAILED")
    replayed = answer.headers.get("idempotent-replayed")
    assert replayed in (None, "true")
    return detail(answer)["executionId"], replayed is not None


def runs_of(http: httpx2.Client, slug: str) -> int:
    return len(http.get("/flow-runs", params={"flow": slug, "limit": 100}).json()["runs"])


def test_the_first_repeat_gets_the_failure_again_and_the_second_one_runs(http: httpx2.Client) -> None:
    before, body = runs_of(http, "broken"), {"message": str(uuid4())}
    first, again = (http.post(PATH, json=body) for _ in range(2))
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert runs_of(http, "broken") == before + 1
    found = [failed(http, **body) for _ in range(2)]
    run = found[0][0]
    assert found == [(run, False), (run, True)]
    assert run != detail(first)["executionId"]
    assert runs_of(http, "broken") == before + 2


def test_a_call_that_differs_runs_the_flow(server: RunningServer, http: httpx2.Client) -> None:
    body = {"message": str(uuid4())}
    with http_for(server, server.make_key("acme", "demo")) as other:
        found = [
            failed(http, **body),
            failed(http, **body, parameters={"x": 1}),
            failed(http, PATH.replace("/execute", "/v1/execute"), **body),
            failed(http, f"{PATH}?version=1", **body),
            failed(other, **body),
        ]
    assert len({run for run, _ in found}) == len(found)
    assert not any(was_replayed for _, was_replayed in found)
    assert failed(http, **body)[1]


def test_a_fault_of_the_server_is_given_again(
    server: RunningServer, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def faulty(*args: object, **more: object) -> None:
        raise RuntimeError("a mistake")

    path, body = "/seq/acme/demo/anything/jobs", {"message": str(uuid4())}
    with monkeypatch.context() as patched:
        patched.setattr(server.runtime, "submit", faulty)
        first = http.post(path, json=body)
    assert refusal(first) == (500, "INTERNAL_ERROR")
    again = http.post(path, json=body)
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    assert http.post(path, json=body).status_code == 202


def test_a_resume_that_failed_is_answered_with_its_outcome(
    server: RunningServer, http: httpx2.Client
) -> None:
    server.push(FALLS)
    path = "/seq/acme/demo/falls/execute"
    paused = http.post(path, json={"message": "hello", "tools": TOOLS}).json()
    asked = resumption(paused, results_of(paused))
    assert failed(http, path, **asked) == (paused["executionId"], False)
    for _ in range(3):
        assert failed(http, path, **asked) == (paused["executionId"], True)
    other = {**asked, "accumulatedOutputs": {"other": {}}}
    assert refusal(http.post(path, json=other)) == (409, "RUN_NOT_PAUSED")
    assert runs_of(http, "falls") == 1
