"""What goes wrong outside of flows: paths, methods, sizes, a store that is away, bytes that are no HTTP.

Once a run has been started, no answer says that nothing was: clients would start it a second time. Those that
send a failed call again by themselves, without an `Idempotency-Key`, start nothing by the first repeat.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from runglass.errors import StoreError
from runglass.runtime.runtime import FixedLimits
from runglass.testing import RunningServer
from tests.contract import wire
from tests.contract.test_tool_calls import TALK, TOOLS, results_of, resumption
from tests.faulty_store import FaultyStore
from tests.servers import server_with

CALL = "/seq/acme/demo/anything/execute"
EXECUTE = f"/api/v1{CALL}"
FAILING = "/seq/acme/demo/broken/execute"
FALLS = """
slug: falls
steps:
  - {id: ask, type: llm, model: echo, prompt: "{{ message }}"}
  - {id: bad, type: code, code: 'raise ValueError("it broke")'}
"""

# What could not be recorded is tried again when the lease is renewed, and a repeat is never too late.
REPEATS = FixedLimits(repeated_s=3600.0)
server = server_with(
    *wire.FLOWS, TALK, FALLS, limits=REPEATS, capture="full", lease_s=10.0, body_limit_bytes=100_000
)


@pytest.mark.parametrize(
    "path",
    [
        "/none",
        "/",
        "/flow-runs/x/trace/streams",
        "/flow-runs/x/steps/a",
        "/seq/acme/demo/words",
        "/seq/acme/demo/words/runs",
        "/seq/acme/demo/words/v1/runs/x/trace",
        "/flow-runs/a%2Fb/trace",
        *("/flow-runs%0A", "/keys/1%0A", "/%0A"),
    ],
)
def test_a_path_that_does_not_exist(http: httpx2.Client, path: str) -> None:
    assert wire.refusal(http.get(path)) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "path",
    ["/flow-runs", "/flow-runs/x", "/flow-runs/x/trace"]
    + [f"/seq/acme/demo/words/{call}" for call in ("execute", "jobs")],
)
def test_a_path_tells_the_methods_that_it_has(http: httpx2.Client, path: str) -> None:
    told = http.options(path)
    assert told.status_code == 204
    methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    answers = {method: http.request(method, path) for method in methods}
    refused = {method for method in methods if answers[method].status_code == 405}
    assert set(told.headers["allow"].split(", ")) == {*methods, "OPTIONS"} - refused
    for method in refused:
        assert answers[method].headers["allow"] == told.headers["allow"]
        assert method == "HEAD" or wire.detail(answers[method])["code"] == "METHOD_NOT_ALLOWED"


def test_head_answers_like_get_without_the_body(http: httpx2.Client) -> None:
    run = wire.execute(http, "anything")
    for path in ("/flow-runs", f"/flow-runs/{run}/trace"):
        head, get = http.head(path), http.get(path)
        assert head.status_code == get.status_code
        assert head.headers["content-length"] == get.headers["content-length"]
        assert head.content == b""


def test_a_whole_50_mb_body_gets_its_413(http: httpx2.Client) -> None:
    answer = http.post(CALL, content=b"x" * 50_000_000)
    assert wire.refusal(answer) == (413, "REQUEST_TOO_LARGE")
    assert http.get("/flow-runs").status_code == 200


def test_a_chunked_body_is_taken_or_refused_where_it_crosses_the_limit(server: RunningServer) -> None:
    head = wire.head_of(server, "POST", EXECUTE, "Transfer-Encoding: chunked")
    with wire.raw_connection(server, head) as connection:
        chunk = b"2710\r\n" + b"x" * 10_000 + b"\r\n"
        for _ in range(11):
            connection.sendall(chunk)
        # No end of the body has been sent, and none is waited for.
        status, _, body = wire.read_answer(connection)
        assert status == 413
        assert b"100,000 bytes" in body
        connection.sendall(chunk + b"0\r\n\r\n")
        # Behind it comes another body in parts, which is within the limit.
        connection.sendall(head)
        connection.sendall(b'f\r\n{"parameters":{\r\n8\r\n"n":  1}\r\n1\r\n}\r\n0\r\n\r\n')
        status, _, body = wire.read_answer(connection)
        assert (status, b'"result":{"n":1}' in body) == (200, True)


def test_a_store_that_is_away_is_503_everywhere_and_its_place_stays_secret(
    server: RunningServer, http: httpx2.Client, caplog: pytest.LogCaptureFixture
) -> None:
    away = StoreError("the store '/secret/place' cannot be used: disk I/O error")
    for method, path in [
        ("find_key", "/flow-runs"),
        ("runs", "/flow-runs"),
        ("trace", "/flow-runs/x/trace"),
        ("run", "/flow-runs/x/steps/s/trace"),
        ("create_run", CALL),
        ("project", f"{server.address}/health"),
    ]:
        with FaultyStore(server.runtime.store) as faults:
            faults.fail(method, away)
            answer = http.post(path, json={}) if path.endswith("execute") else http.get(path)
        assert (answer.status_code, answer.json()["detail"]["code"]) == (503, "UNAVAILABLE")
        assert "/secret" not in answer.text
        assert answer.headers["x-request-id"] in caplog.messages[-1]
        assert "/secret/place" in "".join(caplog.messages[-2:])
        caplog.clear()
    assert http.get(f"{server.address}/health").status_code == 200


def test_a_fault_is_500_with_nothing_of_the_inside_and_a_log_entry_to_find(
    http: httpx2.Client, faults: FaultyStore, caplog: pytest.LogCaptureFixture
) -> None:
    faults.fail("runs", ZeroDivisionError("a secret of the inside"))
    answer = http.get("/flow-runs")
    error = wire.detail(answer)
    assert (answer.status_code, error["code"]) == (500, "INTERNAL_ERROR")
    assert "secret" not in answer.text
    request_id = answer.headers["x-request-id"]
    assert request_id in error["message"]
    entry = next(record for record in caplog.records if record.levelno == logging.ERROR)
    assert request_id in entry.getMessage()
    assert entry.exc_info is not None


def test_a_stream_whose_store_goes_away_ends_without_a_last_event(
    http: httpx2.Client, faults: FaultyStore
) -> None:
    # Not what a test before has failed with: that would be answered as a repeat of it.
    run = wire.execute(http, "anything", message="a stream that breaks off")
    faults.fail("events", StoreError("the store cannot be used: disk I/O error"))
    answer = http.get(f"/flow-runs/{run}/trace/stream")
    assert (answer.status_code, answer.text) == (200, "retry: 1000\n\n")


@contextmanager
def broken(server: RunningServer, method: str, *, after: str) -> Iterator[None]:
    """Inside the block, `method` of the store fails once `after` has been done."""
    done: list[object] = []
    with FaultyStore(server.runtime.store) as faults:
        faults.after(after, done.append)
        faults.fail(method, StoreError("disk I/O error"), when=lambda *_, **__: done)
        yield


def test_an_answer_that_cannot_be_kept_is_given_all_the_same_until_its_run_is_resumed(
    server: RunningServer, http: httpx2.Client
) -> None:
    path, headers = "/seq/acme/demo/talk/execute", {"Idempotency-Key": str(uuid4())}
    body = {"message": "hi", "tools": TOOLS}
    with broken(server, "answer_call", after="create_run"):
        first, second = (http.post(path, json=body, headers=headers) for _ in range(2))
        assert first.json()["status"] == "tool_calls_required"
        assert second.content == first.content
        resumed = http.post(path, json=resumption(first.json(), results_of(first.json())))
    assert resumed.json()["status"] == "completed"
    gone = http.post(path, json=body, headers=headers)
    assert wire.refusal(gone) == (410, "ANSWER_EXPIRED"), "the end is the answer to another call"


def test_a_step_whose_run_cannot_be_read_back_is_not_unavailable(
    server: RunningServer, http: httpx2.Client
) -> None:
    with broken(server, "run", after="create_run"):
        answer, again = (http.post("/seq/acme/demo/anything/v1/step", json={}) for _ in range(2))
    assert wire.refusal(answer) == (500, "INTERNAL_ERROR")
    trace = http.get(f"/flow-runs/{wire.detail(answer)['executionId']}/trace").json()
    assert trace["flowRun"]["triggerType"] == "step"
    assert again.content == answer.content, "some clients repeat it by themselves: no second run was started"
    assert again.headers["idempotent-replayed"] == "true"


def test_a_further_step_that_fails_once_it_has_begun_is_repeated_any_number_of_times(
    server: RunningServer, http: httpx2.Client
) -> None:
    server.push("slug: two-steps\nsteps: [{id: a, type: passthrough}, {id: b, type: passthrough}]\n")
    path = "/seq/acme/demo/two-steps/step"
    run = wire.frames(http.post(path, json={}).text)[0].data["executionId"]
    with broken(server, "run", after="resume_run"):
        answers = [http.post(path, json={"executionId": run, "stepIndex": 1}) for _ in range(3)]
    assert {(answer.status_code, answer.content) for answer in answers} == {(500, answers[0].content)}


def test_a_fault_on_the_way_to_an_outcome_is_not_kept_as_the_outcome(
    server: RunningServer, http: httpx2.Client
) -> None:
    headers = {"Idempotency-Key": str(uuid4())}
    with broken(server, "append", after="create_run"):
        answer = http.post(CALL, json={}, headers=headers)
    assert wire.refusal(answer) == (500, "INTERNAL_ERROR")
    run = wire.detail(answer)["executionId"]
    again = http.post(CALL, json={}, headers=headers)
    assert again.status_code == 200
    assert again.json()["executionId"] == run


def test_a_commit_that_failed_and_was_made_is_no_second_run(
    server: RunningServer, http: httpx2.Client, faults: FaultyStore
) -> None:
    # The second try of the same work finds what the first has left.
    faults.before("create_run", server.runtime.store.create_run)
    key = {"Idempotency-Key": str(uuid4())}
    answers = [http.post(CALL, json={}, headers=h) for h in (key, {})]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert http.post(CALL, json={}, headers=key).json() == answers[0].json()


def test_a_cancellation_that_cannot_be_confirmed_is_to_be_sent_again(
    server: RunningServer, http: httpx2.Client
) -> None:
    run = wire.start(server, "endless")
    wire.until_event(http, run, "step_started", nth=2)
    with broken(server, "run", after="append"):
        answer = http.delete(f"/flow-runs/{run}")
    assert wire.refusal(answer) == (503, "UNAVAILABLE")
    assert "nothing was started" not in answer.text
    assert wire.refusal(http.delete(f"/flow-runs/{run}")) == (409, "RUN_ENDED")
    wire.execute(http, "anything")


def failed(http: httpx2.Client, path: str = FAILING, **body: Any) -> tuple[str, bool]:
    """The run that the answer speaks of, and whether the answer was given before."""
    answer = http.post(path, json=body)
    assert wire.refusal(answer) == (500, "STEP_FAILED")
    replayed = answer.headers.get("idempotent-replayed")
    assert replayed in (None, "true")
    return wire.detail(answer)["executionId"], replayed is not None


def runs_of(http: httpx2.Client, slug: str) -> int:
    return len(http.get("/flow-runs", params={"flow": slug, "limit": 100}).json()["runs"])


def test_the_first_repeat_gets_the_failure_again_and_the_second_one_runs(http: httpx2.Client) -> None:
    before, body = runs_of(http, "broken"), {"message": str(uuid4())}
    first, again = (http.post(FAILING, json=body) for _ in range(2))
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert runs_of(http, "broken") == before + 1
    found = [failed(http, **body) for _ in range(2)]
    run = found[0][0]
    assert found == [(run, False), (run, True)]
    assert run != wire.detail(first)["executionId"]
    assert runs_of(http, "broken") == before + 2


def test_a_call_that_differs_runs_the_flow(server: RunningServer, http: httpx2.Client) -> None:
    body = {"message": str(uuid4())}
    with wire.http_for(server, server.make_key("acme", "demo")) as other:
        found = [
            failed(http, **body),
            failed(http, **body, parameters={"x": 1}),
            failed(http, FAILING.replace("/execute", "/v1/execute"), **body),
            failed(http, f"{FAILING}?version=1", **body),
            failed(other, **body),
        ]
    assert len({run for run, _ in found}) == len(found)
    assert not any(was_replayed for _, was_replayed in found)
    assert failed(http, **body)[1]


def test_a_fault_of_the_server_is_given_again(server: RunningServer, http: httpx2.Client) -> None:
    path, body = "/seq/acme/demo/anything/jobs", {"message": str(uuid4())}
    with FaultyStore(server.runtime) as runtime:
        runtime.fail("submit", RuntimeError("a mistake"))
        first = http.post(path, json=body)
    assert wire.refusal(first) == (500, "INTERNAL_ERROR")
    again = http.post(path, json=body)
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    assert http.post(path, json=body).status_code == 202


def test_a_resume_that_failed_is_answered_with_its_outcome(http: httpx2.Client) -> None:
    path = "/seq/acme/demo/falls/execute"
    paused = http.post(path, json={"message": "hello", "tools": TOOLS}).json()
    asked = resumption(paused, results_of(paused))
    assert failed(http, path, **asked) == (paused["executionId"], False)
    for _ in range(3):
        assert failed(http, path, **asked) == (paused["executionId"], True)
    other = {**asked, "accumulatedOutputs": {"other": {}}}
    assert wire.refusal(http.post(path, json=other)) == (409, "RUN_NOT_PAUSED")
    assert runs_of(http, "falls") == 1
