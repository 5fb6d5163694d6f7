"""Content that the log does not keep is for the key that started the run, and in no answer to any other."""

from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import uuid4

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.test_tool_calls import TOOLS
from tests.contract.wire import detail, frames, http_for, known_key, refusal, start

# Of a shape that redaction knows, so that it has no place in a redacted trace either.
CANARY = "canary.in.the.mine@example.com"
MODES = ["off", "metadata_only", "redacted", "full"]
FLOWS = """
slug: keeps-{slug}
capture: "{mode}"
steps: [{{id: one, type: passthrough}}, {{id: two, type: passthrough}}]
---
slug: fails-{slug}
capture: "{mode}"
steps: [{{id: bad, type: code, code: 'raise ValueError(message)'}}]
---
slug: asks-{slug}
capture: "{mode}"
steps: [{{id: one, type: passthrough}}, {{id: ask, type: llm, model: echo, prompt: "{{{{ message }}}}"}}]
"""


def slug(mode: str) -> str:
    return mode.replace("_", "-")


OTHERS = ["other", "admin", "read"]


class Callers(NamedTuple):
    keys: dict[str, httpx2.Client]
    starter_id: int


@pytest.fixture(scope="module")
def callers(server: RunningServer) -> Iterator[Callers]:
    for mode in MODES:
        for flow in FLOWS.format(mode=mode, slug=slug(mode)).split("---"):
            server.push(flow)
    roles = {"starter": "run", "other": "run", "admin": "admin", "read": "read"}
    made = {name: server.make_key("acme", "demo", role) for name, role in roles.items()}
    clients = {name: http_for(server, key) for name, key in made.items()}
    yield Callers(clients, known_key(server, made["starter"]).id)
    for client in clients.values():
        client.close()


class Started(NamedTuple):
    """The runs of the key that started them, and calls that ask again for its answers."""

    session: str
    job: str
    failed: str | None
    walk: str
    paused: str
    repeats: list[tuple[str, dict[str, Any], dict[str, str]]]
    resumes: list[tuple[str, dict[str, Any]]]


def begin(http: httpx2.Client, mode: str) -> Started:
    session, message = str(uuid4()), {"message": CANARY}
    path = "/seq/acme/demo/{}-" + slug(mode) + "/{}"
    repeats = []

    def post(flow: str, end: str, **more: Any) -> httpx2.Response:
        headers = {"X-Session-Id": session, "Idempotency-Key": str(uuid4())}
        call = (path.format(flow, end), message | more, headers)
        repeats.append(call)
        answer = http.post(call[0], json=call[1], headers=headers)
        assert answer.status_code in (200, 202, 500), answer.text
        return answer

    job = post("keeps", "jobs").json()["executionId"]
    http.get(f"/flow-runs/{job}/trace/stream")
    post("keeps", "execute")
    failed = None
    # Under this mode the log keeps messages of errors, so every key may read them.
    if mode != "metadata_only":
        failed = post("fails", "jobs").json()["executionId"]
        http.get(f"/flow-runs/{failed}/trace/stream")
        post("fails", "execute")
    walk = frames(post("keeps", "step").text)[0].data["executionId"]
    paused = post("asks", "execute", tools=TOOLS).json()
    results = [{"toolCallId": call["id"], "output": "x"} for call in paused["toolCalls"]]
    resumes = [
        (path.format("asks", "execute"), {"executionId": paused["executionId"], "toolCallMessages": results}),
        (path.format("keeps", "step"), {"executionId": walk, "stepIndex": 1}),
    ]
    return Started(session, job, failed, walk, paused["executionId"], repeats, resumes)


def reads(started: Started, mode: str) -> Iterator[str]:
    """Every path that tells of runs, of each of them."""
    jobs = {started.job: f"keeps-{slug(mode)}"}
    if started.failed is not None:
        jobs[started.failed] = f"fails-{slug(mode)}"
    for run, flow in jobs.items():
        yield f"/seq/acme/demo/{flow}/jobs/{run}"
        yield f"/seq/acme/demo/{flow}/v1/jobs/{run}"
        yield f"/seq/acme/demo/{flow}/jobs"
    walks = {started.walk: f"keeps-{slug(mode)}", started.paused: f"asks-{slug(mode)}"}
    for run, flow in (jobs | walks).items():
        for base in (f"/flow-runs/{run}", f"/seq/acme/demo/{flow}/runs/{run}"):
            yield f"{base}/trace"
            for step in ("one", "two", "bad", "ask"):
                yield f"{base}/steps/{step}/trace?attempt=all"
            if run in jobs:
                yield f"{base}/trace/stream"
    yield f"/seq/sessions/{started.session}"
    yield "/flow-runs?limit=100"
    yield "/flows"
    yield "/audit?limit=100"


@pytest.mark.parametrize("mode", MODES[:3])
def test_no_answer_to_another_key_has_the_content(callers: Callers, mode: str) -> None:
    started = begin(callers.keys["starter"], mode)
    told: dict[str, str] = {}
    for name in OTHERS:
        http = callers.keys[name]
        for path in reads(started, mode):
            told[f"{name} GET {path}"] = http.get(path).text
        for path, body, headers in started.repeats:
            again = http.post(path, json=body, headers=headers)
            assert refusal(again) == (403, "FORBIDDEN"), (name, path)
            told[f"{name} repeats {path}"] = again.text
        for path, body in started.resumes:
            resumed = http.post(path, json=body)
            assert refusal(resumed) == (403, "FORBIDDEN"), (name, path)
            told[f"{name} resumes {path}"] = resumed.text
        refused = http.get(f"/seq/acme/demo/keeps-{slug(mode)}/jobs/{started.job}")
        assert refusal(refused) == (403, "FORBIDDEN")
        assert detail(refused)["status"] == "completed"
        assert f"key {callers.starter_id}" in detail(refused)["message"]
        if started.failed is not None:
            state = http.get(f"/seq/acme/demo/fails-{slug(mode)}/jobs/{started.failed}").json()
            assert state["status"] == "failed"
    told["cancels"] = callers.keys["other"].delete(f"/flow-runs/{started.walk}").text
    told["purges"] = callers.keys["admin"].delete(f"/flow-runs/{started.paused}?purge=true").text
    assert [where for where, text in told.items() if CANARY in text] == []


@pytest.mark.parametrize("mode", MODES)
def test_the_key_that_started_the_runs_gets_all_content(callers: Callers, mode: str) -> None:
    http = callers.keys["starter"]
    started = begin(http, mode)
    assert (
        CANARY
        in http.get(f"/seq/acme/demo/keeps-{slug(mode)}/jobs/{started.job}").json()["result"]["message"]
    )
    if started.failed is not None:
        failed = http.get(f"/seq/acme/demo/fails-{slug(mode)}/jobs/{started.failed}").json()
        assert CANARY in failed["error"]
    for path, body, headers in started.repeats:
        answer = http.post(path, json=body, headers=headers)
        assert (CANARY in answer.text) == (not path.endswith("jobs")), path
    for path, body in started.resumes:
        assert CANARY in http.post(path, json=body).text


@pytest.mark.parametrize("name", OTHERS)
def test_under_full_every_key_of_the_project_gets_the_content(callers: Callers, name: str) -> None:
    started, http = begin(callers.keys["starter"], "full"), callers.keys[name]
    assert CANARY in http.get(f"/seq/acme/demo/keeps-full/jobs/{started.job}").text
    may_run = name != "read"
    for path, body, headers in started.repeats:
        assert (http.post(path, json=body, headers=headers).status_code != 403) == may_run
    for path, body in started.resumes:
        assert (http.post(path, json=body).status_code == 200) == may_run


def test_content_of_a_run_without_a_key_is_for_keys_that_may_run_flows(
    server: RunningServer, callers: Callers
) -> None:
    """As of runs that an earlier version has left, which did not note the key."""
    run = start(server, "keeps-off", message=CANARY)
    callers.keys["admin"].get(f"/flow-runs/{run}/trace/stream")

    async def as_a_job() -> None:
        def work(db: Any) -> None:
            db.execute("UPDATE run SET trigger_type = 'job' WHERE id = ?", (run,))

        await server.runtime.store.connections.write(work)  # type: ignore[attr-defined]

    server.call(as_a_job())
    path = f"/seq/acme/demo/keeps-off/jobs/{run}"
    assert all(CANARY in callers.keys[name].get(path).text for name in ("starter", "other", "admin"))
    assert refusal(callers.keys["read"].get(path)) == (403, "FORBIDDEN")
