"""Once a run has been started, no answer says that nothing was: clients would start it a second time."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import httpx2

from runglass.errors import StoreError
from runglass.testing import RunningServer
from tests.contract.stores import own_server
from tests.contract.test_tool_calls import TALK, TOOLS, results_of, resumption
from tests.contract.wire import FLOWS, detail, execute, frames, refusal, start
from tests.faulty_store import FaultyStore

# What could not be recorded is tried again when the lease is renewed.
server = own_server(*FLOWS, capture="full", lease_s=10.0)


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
    server.push(TALK)
    path, headers = "/seq/acme/demo/talk/execute", {"Idempotency-Key": str(uuid4())}
    body = {"message": "hi", "tools": TOOLS}
    with broken(server, "answer_call", after="create_run"):
        first, second = (http.post(path, json=body, headers=headers) for _ in range(2))
        assert first.json()["status"] == "tool_calls_required"
        assert second.content == first.content
        resumed = http.post(path, json=resumption(first.json(), results_of(first.json())))
    assert resumed.json()["status"] == "completed"
    gone = http.post(path, json=body, headers=headers)
    assert refusal(gone) == (410, "ANSWER_EXPIRED"), "the end is the answer to another call"


def test_a_step_whose_run_cannot_be_read_back_is_not_unavailable(
    server: RunningServer, http: httpx2.Client
) -> None:
    with broken(server, "run", after="create_run"):
        answer, again = (http.post("/seq/acme/demo/anything/v1/step", json={}) for _ in range(2))
    assert refusal(answer) == (500, "INTERNAL_ERROR")
    trace = http.get(f"/flow-runs/{detail(answer)['executionId']}/trace").json()
    assert trace["flowRun"]["triggerType"] == "step"
    assert again.content == answer.content, "some clients repeat it by themselves: no second run was started"
    assert again.headers["idempotent-replayed"] == "true"


def test_a_further_step_that_fails_once_it_has_begun_is_repeated_any_number_of_times(
    server: RunningServer, http: httpx2.Client
) -> None:
    server.push("slug: two-steps\nsteps: [{id: a, type: passthrough}, {id: b, type: passthrough}]\n")
    path = "/seq/acme/demo/two-steps/step"
    run = frames(http.post(path, json={}).text)[0].data["executionId"]
    with broken(server, "run", after="resume_run"):
        answers = [http.post(path, json={"executionId": run, "stepIndex": 1}) for _ in range(3)]
    assert {(answer.status_code, answer.content) for answer in answers} == {(500, answers[0].content)}


def test_a_fault_on_the_way_to_an_outcome_is_not_kept_as_the_outcome(
    server: RunningServer, http: httpx2.Client
) -> None:
    headers = {"Idempotency-Key": str(uuid4())}
    with broken(server, "append", after="create_run"):
        answer = http.post("/seq/acme/demo/anything/execute", json={}, headers=headers)
    assert refusal(answer) == (500, "INTERNAL_ERROR")
    run = detail(answer)["executionId"]
    again = http.post("/seq/acme/demo/anything/execute", json={}, headers=headers)
    assert again.status_code == 200
    assert again.json()["executionId"] == run


def test_a_commit_that_failed_and_was_made_is_no_second_run(
    server: RunningServer, http: httpx2.Client
) -> None:
    create = server.runtime.store.create_run
    with FaultyStore(server.runtime.store) as faults:
        # The second try of the same work finds what the first has left.
        faults.before("create_run", create)
        key = {"Idempotency-Key": str(uuid4())}
        answers = [http.post("/seq/acme/demo/anything/execute", json={}, headers=h) for h in (key, {})]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert http.post("/seq/acme/demo/anything/execute", json={}, headers=key).json() == answers[0].json()


def test_a_cancellation_that_cannot_be_confirmed_is_to_be_sent_again(
    server: RunningServer, http: httpx2.Client
) -> None:
    run = start(server, "endless")
    with broken(server, "run", after="append"):
        answer = http.delete(f"/flow-runs/{run}")
    assert refusal(answer) == (503, "UNAVAILABLE")
    assert "nothing was started" not in detail(answer)["message"]
    assert refusal(http.delete(f"/flow-runs/{run}")) == (409, "RUN_ENDED")
    execute(http, "anything")
