"""The content that a caller is owed: all of it, in every mode, for `answer_ttl_s`, and for no other key."""

from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import uuid4

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.test_jobs import ended
from tests.contract.test_tool_calls import TOOLS, resumed
from tests.contract.test_unreadable import place_of
from tests.contract.wire import detail, events_of, frames, http_for, known_key, refusal, start, trace_of
from tests.servers import served, server_with
from tests.waiting import eventually

# Of a shape that redaction knows, so that it has no place in a redacted trace either.
CANARY = "canary.in.the.mine@example.com"
MODES = ["off", "metadata_only", "redacted", "full"]
FLOWS = """
slug: keeps-SLUG
capture: "MODE"
steps: [{id: one, type: passthrough}, {id: two, type: passthrough}, {id: three, type: passthrough}]
---
slug: fails-SLUG
capture: "MODE"
steps:
  - {id: bad, type: code, code: raise ValueError(message), retry: {max_attempts: 2, initial_delay_ms: 0}}
---
slug: asks-SLUG
capture: "MODE"
steps: [{id: one, type: passthrough}, {id: ask, type: llm, model: echo, prompt: "{{ message }}"}]
"""
PRINTS = """
slug: prints
capture: "off"
steps: [{id: bad, type: code, code: 'print("loud " * 2); raise ValueError("why " * 2)'}]
"""
ROLES = {"starter": "run", "other": "run", "admin": "admin", "read": "read"}


def path_of(flow: str, mode: str, call: str = "execute") -> str:
    return f"/seq/acme/demo/{flow}-{mode.replace('_', '-')}/{call}"


def flows_of(mode: str) -> list[str]:
    return FLOWS.replace("SLUG", mode.replace("_", "-")).replace("MODE", mode).split("---")


server = server_with(PRINTS, *(flow for mode in MODES for flow in flows_of(mode)), capture="full")


class Callers(NamedTuple):
    keys: dict[str, httpx2.Client]
    starter_id: int


@pytest.fixture(scope="module")
def callers(server: RunningServer) -> Iterator[Callers]:
    made = {name: server.make_key("acme", "demo", role) for name, role in ROLES.items()}
    clients = {name: http_for(server, key) for name, key in made.items()}
    yield Callers(clients, known_key(server, made["starter"]).id)
    for client in clients.values():
        client.close()


@pytest.mark.parametrize("key", [None, "key"])
def test_a_step_through_gets_the_whole_error_and_the_log_what_its_mode_keeps(
    http: httpx2.Client, key: str | None
) -> None:
    headers = {"Idempotency-Key": str(uuid4())} if key else {}
    first, *again = [
        http.post(path_of("fails", "off", "step"), json={"message": CANARY}, headers=headers).text
        for _ in range(2 if key else 1)
    ]
    assert again in ([], [first]), "a repeated call gets the same"
    told = [frame for frame in frames(first) if "error" in frame.data]
    assert [frame.event for frame in told] == ["step_retrying", "step_error", "flow_failed"]
    assert {frame.data["error"]["message"] for frame in told} == {f"ValueError: {CANARY} (line 1)"}
    run = told[0].data["executionId"]
    kept = {"code": "CODE_ERROR", "type": "ValueError", "line": 1}
    log = events_of(http, run)
    assert [frame.data["error"] for frame in log if "error" in frame.data] == [kept] * 3
    attempts = http.get(f"/flow-runs/{run}/steps/bad/trace", params={"attempt": "all"}).json()["attempts"]
    assert [attempt["errorContext"] for attempt in attempts] == [kept] * 2
    assert CANARY not in str([frame.data for frame in log]) + str(attempts)


def expire(server: RunningServer) -> None:
    """Lets everything expire that may."""

    async def work() -> None:
        while await server.runtime.store.expire_answers(before="9999", limit=100):
            pass
        while await server.runtime.store.drop_checkpoints(limit_rows=100, limit_bytes=1 << 20):
            pass

    server.call(work())


@pytest.mark.parametrize(
    ("flow", "call"), [("keeps", "execute"), ("keeps", "jobs"), ("keeps", "step"), ("fails", "execute")]
)
def test_a_repeat_after_the_answer_has_expired_is_answer_expired_and_starts_nothing(
    server: RunningServer, http: httpx2.Client, flow: str, call: str
) -> None:
    headers = {"Idempotency-Key": str(uuid4())}
    more = {"runRemaining": True} if call == "step" else {}

    def post(message: str = "hi") -> httpx2.Response:
        return http.post(path_of(flow, "off", call), json={"message": message, **more}, headers=headers)

    first = post()
    assert post().content == first.content
    run = first.text.split('"executionId":"')[1][:36]
    events_of(http, run)
    expire(server)
    gone = post()
    assert refusal(gone) == (410, "ANSWER_EXPIRED")
    assert detail(gone)["executionId"] == run
    assert http.get("/flow-runs").json()["runs"][0]["id"] == run, "nothing was started"
    assert refusal(post("other")) == (409, "IDEMPOTENCY_MISMATCH"), "the key is known still"


def test_the_answer_of_a_pause_expires_and_the_run_can_be_taken_up(
    server: RunningServer, http: httpx2.Client
) -> None:
    path, headers = path_of("asks", "off"), {"Idempotency-Key": str(uuid4())}
    body = {"message": "hi", "tools": TOOLS}
    paused = http.post(path, json=body, headers=headers).json()
    expire(server)
    assert refusal(http.post(path, json=body, headers=headers)) == (410, "ANSWER_EXPIRED")
    assert resumed(http, paused, path=path).json()["status"] == "completed"


@pytest.mark.parametrize(
    ("mode", "text", "status"),
    [
        ("off", "hi", 410),
        ("metadata_only", "hi", 410),
        ("redacted", "hi", 410),
        # Over the limit of a snapshot.
        ("full", "x" * 300_000, 410),
        ("full", "hi", 200),
    ],
)
def test_a_job_whose_result_has_expired_does_not_return_null(
    server: RunningServer, http: httpx2.Client, mode: str, text: str, status: int
) -> None:
    """Where the log keeps the whole result anyway, it comes from there."""
    path = path_of("keeps", mode, "jobs")
    run = http.post(path, json={"message": text}).json()["executionId"]
    events_of(http, run)
    assert http.get(f"{path}/{run}").json()["result"] == {"message": text}
    expire(server)
    answer = http.get(f"{path}/{run}")
    if status == 200:
        assert answer.json()["result"] == {"message": text}
    else:
        assert refusal(answer) == (410, "ANSWER_EXPIRED")
        assert detail(answer)["executionId"] == run
    assert trace_of(http, run)["flowRun"]["status"] == "completed"


def test_a_short_time_to_live_is_kept_to_by_a_running_server() -> None:
    with served(flows_of("off")[0], answer_ttl_s=0.5) as (_, http):
        headers = {"Idempotency-Key": "key"}

        def call() -> httpx2.Response:
            return http.post(path_of("keeps", "off"), json={"message": CANARY}, headers=headers)

        assert call().status_code == 200
        expired = eventually(lambda: answer if (answer := call()).status_code != 200 else None)
        assert refusal(expired) == (410, "ANSWER_EXPIRED")


def test_of_a_failed_jobs_error_the_sentence_alone_is_kept_and_its_code_once_that_has_expired(
    server: RunningServer, http: httpx2.Client
) -> None:
    run = http.post("/seq/acme/demo/prints/jobs", json={}).json()["executionId"]
    job = ended(http, run, "prints")
    files = [path for path in server.runtime.settings.data.rglob("*") if path.is_file()]
    kept = b"".join(path.read_bytes() for path in files)
    assert "why why" in job["error"]
    assert b"why why" in kept
    assert b"loud loud" not in kept
    expire(server)
    state = ended(http, run, "prints")
    assert state["status"] == "failed"
    assert state["error"].startswith("step 'bad' failed: ")
    assert state["error"].endswith("(CODE_ERROR)")
    assert "why" not in state["error"]


class Started(NamedTuple):
    """The runs of the key that started them, with their flows.

    And its calls, as another key may send them: those that were made, and then those that would resume a run.
    """

    session: str
    jobs: dict[str, str]
    walks: dict[str, str]
    calls: list[tuple[str, dict[str, Any], dict[str, str]]]


def begin(http: httpx2.Client, mode: str) -> Started:
    session, jobs, calls = str(uuid4()), {}, []

    def post(flow: str, call: str, **more: Any) -> httpx2.Response:
        headers = {"X-Session-Id": session, "Idempotency-Key": str(uuid4())}
        path, body = path_of(flow, mode, call), {"message": CANARY, **more}
        calls.append((path, body, headers))
        answer = http.post(path, json=body, headers=headers)
        assert answer.status_code in (200, 202, 500), answer.text
        return answer

    # Under metadata_only the log keeps messages of errors, so every key may read them.
    for flow in ("keeps",) if mode == "metadata_only" else ("keeps", "fails"):
        job = post(flow, "jobs").json()["executionId"]
        jobs[job] = flow
        events_of(http, job)
        post(flow, "execute")
    walk = frames(post("keeps", "step").text)[0].data["executionId"]
    paused = post("asks", "execute", tools=TOOLS).json()
    results = [{"toolCallId": call["id"], "output": "x"} for call in paused["toolCalls"]]
    calls += [
        (path_of("asks", mode), {"executionId": paused["executionId"], "toolCallMessages": results}, {}),
        (path_of("keeps", mode, "step"), {"executionId": walk, "stepIndex": 1}, {}),
    ]
    return Started(session, jobs, {walk: "keeps", paused["executionId"]: "asks"}, calls)


def reads(started: Started, mode: str) -> Iterator[str]:
    """Every path that tells of runs, of each of them."""
    for run, flow in started.jobs.items():
        for path in (f"jobs/{run}", f"v1/jobs/{run}", "jobs", f"runs/{run}/trace/stream"):
            yield path_of(flow, mode, path)
        yield f"/flow-runs/{run}/trace/stream"
    for run, flow in (started.jobs | started.walks).items():
        # The runs of other tests may be under full.
        yield f"/flow-runs?flow={flow}-{mode.replace('_', '-')}&limit=100"
        for base in (f"/flow-runs/{run}", path_of(flow, mode, f"runs/{run}")):
            yield f"{base}/trace"
            for step in ("one", "two", "bad", "ask"):
                yield f"{base}/steps/{step}/trace?attempt=all"
    yield f"/seq/sessions/{started.session}"
    yield "/flows"
    yield "/audit?limit=100"


@pytest.mark.parametrize("mode", MODES[:3])
def test_no_answer_to_another_key_has_the_content_and_the_starter_gets_it(
    callers: Callers, mode: str
) -> None:
    started = begin(callers.keys["starter"], mode)
    told: dict[str, str] = {}
    for name in ("other", "admin", "read"):
        http = callers.keys[name]
        for path in reads(started, mode):
            told[f"{name} GET {path}"] = http.get(path).text
        for path, body, headers in started.calls:
            answer = http.post(path, json=body, headers=headers)
            assert refusal(answer) == (403, "FORBIDDEN"), (name, path)
            told[f"{name} POST {path} {body}"] = answer.text
        for run, flow in started.jobs.items():
            state = http.get(path_of(flow, mode, f"jobs/{run}"))
            if flow == "fails":
                assert state.json()["status"] == "failed"
            else:
                assert refusal(state, f"key {callers.starter_id}") == (403, "FORBIDDEN")
                assert detail(state)["status"] == "completed"
    gets_all_content(callers.keys["starter"], started, mode)
    for run in started.walks:
        told[f"cancels {run}"] = callers.keys["other"].delete(f"/flow-runs/{run}").text
        told[f"purges {run}"] = callers.keys["admin"].delete(f"/flow-runs/{run}?purge=true").text
    assert [where for where, text in told.items() if CANARY in text] == []


def gets_all_content(http: httpx2.Client, started: Started, mode: str) -> None:
    for run, flow in started.jobs.items():
        assert CANARY in http.get(path_of(flow, mode, f"jobs/{run}")).text, flow
    for path, body, headers in started.calls:
        answer = http.post(path, json=body, headers=headers)
        assert (CANARY in answer.text) == (not path.endswith("jobs")), path


@pytest.mark.parametrize("name", ROLES)
def test_under_full_every_key_of_the_project_gets_the_content(callers: Callers, name: str) -> None:
    started, http = begin(callers.keys["starter"], "full"), callers.keys[name]
    if name != "read":
        gets_all_content(http, started, "full")
        return
    for run, flow in started.jobs.items():
        assert CANARY in http.get(path_of(flow, "full", f"jobs/{run}")).text, flow
    for path, body, headers in started.calls:
        assert refusal(http.post(path, json=body, headers=headers)) == (403, "FORBIDDEN")


def test_content_of_a_run_without_a_key_is_for_keys_that_may_run_flows(
    server: RunningServer, callers: Callers
) -> None:
    """As of runs that an earlier version has left, which did not note the key."""
    run = start(server, "keeps-off", message=CANARY)
    events_of(callers.keys["admin"], run)
    assert place_of(server).execute("UPDATE run SET trigger_type = 'job' WHERE id = ? RETURNING 1", run)
    path = path_of("keeps", "off", f"jobs/{run}")
    assert all(CANARY in callers.keys[name].get(path).text for name in ("starter", "other", "admin"))
    assert refusal(callers.keys["read"].get(path)) == (403, "FORBIDDEN")
