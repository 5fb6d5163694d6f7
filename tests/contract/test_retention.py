"""Runs and their content go when the server, a project or a flow says so, or an admin purges a run."""

import uuid

import httpx2
import pytest
from msgspec.structs import replace

from runglass.errors import APIError
from runglass.server.calls.responses import idle_run
from runglass.testing import RunningServer
from tests.contract.test_jobs import paused
from tests.contract.wire import FLOWS, events_of, execute, frames, http_for, refusal, start, trace_of
from tests.faulty_store import FaultyStore
from tests.records import there
from tests.reference_fold import reference_trace
from tests.servers import server_with

SECRET = "sesame"
SHORT = "slug: short\nretention_days: 0\nsteps: [{id: keep, type: passthrough}]\n"
LONG = "slug: long\ncontent_retention_days: 100.5\nsteps: [{id: keep, type: passthrough}]\n"


# A server that keeps content until it next tidies up.
server = server_with(*FLOWS, SHORT, LONG, capture="full", content_retention_days=0)


def tidy(server: RunningServer) -> None:
    server.call(server.runtime.removal.tidy())


@pytest.mark.parametrize("slug", ["words", "broken"])
def test_without_its_content_a_run_has_its_trace_and_is_not_run_again_nor_its_answer_repeated(
    server: RunningServer, http: httpx2.Client, slug: str
) -> None:
    def called() -> httpx2.Response:
        path, body = f"/seq/acme/demo/{slug}/execute", {"parameters": {"message": f"say {SECRET}"}}
        return http.post(path, json=body, headers={"Idempotency-Key": slug})

    assert called().content == called().content
    run = http.get("/flow-runs").json()["runs"][0]["id"]
    trace, stream = f"/flow-runs/{run}/trace", f"/flow-runs/{run}/trace/stream"
    assert SECRET in http.get(trace).text
    assert SECRET in http.get(stream).text
    before = http.get(trace).json()
    tidy(server)
    left, events = trace_of(http, run), [frame.data for frame in events_of(http, run)]
    assert reference_trace(events) == left
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    for text in (http.get(trace).text, http.get(stream).text):
        assert SECRET.upper() not in text.upper()
        assert "it broke" not in text
    before["flowRun"].get("error", {}).pop("message", None)
    for content in ("input", "inputPreview", "result", "resultPreview"):
        before["flowRun"].pop(content, None)
    assert left["flowRun"] == before["flowRun"]
    for now, then in zip(left["steps"], before["steps"], strict=True):
        for field in ("stepId", "attempt", "status", "durationMs", "tokens", "costUsd", "inputSizeBytes"):
            assert now.get(field) == then.get(field)
    if slug == "broken":
        assert left["steps"][-1]["errorContext"]["code"] == "CODE_ERROR"

    assert refusal(called()) == (410, "ANSWER_EXPIRED")
    refused = http.post(f"/flow-runs/{run}/rerun", json={})
    assert refusal(refused, "it has been removed since (content retention)") == (409, "INPUT_NOT_KEPT")
    assert http.get("/flow-runs").json()["runs"][0]["id"] == run, "nothing was started"


def test_a_flow_file_says_how_long_its_runs_and_their_content_stay(
    server: RunningServer, http: httpx2.Client
) -> None:
    short, kept = (execute(http, slug, parameters={"x": SECRET}) for slug in ("short", "long"))
    tidy(server)
    assert refusal(http.get(f"/flow-runs/{short}/trace")) == (404, "RUN_NOT_FOUND")
    assert SECRET in http.get(f"/flow-runs/{kept}/trace").text


FORMS = ["/flow-runs/{}?purge=true", "/seq/acme/demo/endless/runs/{}?purge=true"]


@pytest.mark.parametrize(
    ("kind", "form"), [("ended", FORMS[0]), ("paused", FORMS[0]), *(("going on", form) for form in FORMS)]
)
def test_a_run_is_purged_whatever_its_state(
    server: RunningServer, http: httpx2.Client, kind: str, form: str
) -> None:
    """One that goes on is cancelled first. No way leads to it any more: it looks like one that never was."""
    other, unknown = execute(http, "anything"), str(uuid.uuid4())
    if kind == "ended":
        run = execute(http, "anything")
    else:
        run = paused(server, http) if kind == "paused" else start(server, "endless")
    answer = http.delete(form.format(run))
    assert (answer.status_code, answer.headers["content-type"]) == (202, "application/json")
    assert answer.json() == {"executionId": run, "status": "purged"}
    assert not server.runtime.engine.active.is_active(run)
    for path in ("", "/trace", "/trace/stream", "/steps/first/trace"):
        method = "GET" if path else "DELETE"
        gone, never = (http.request(method, f"/flow-runs/{name}{path}") for name in (run, unknown))
        assert refusal(gone) == (404, "RUN_NOT_FOUND")
        assert gone.text == never.text.replace(unknown, run)
    assert refusal(http.delete(f"/flow-runs/{run}?purge=true")) == (404, "RUN_NOT_FOUND")
    assert run not in [each["id"] for each in http.get("/flow-runs?limit=100").json()["runs"]]
    assert http.get(f"/flow-runs/{other}/trace").status_code == 200


def test_a_stream_of_a_purged_run_gets_its_cancellation(server: RunningServer, http: httpx2.Client) -> None:
    run = start(server, "endless")
    with http.stream("GET", f"/flow-runs/{run}/trace/stream") as stream:
        parts = stream.iter_text()
        seen = next(parts)
        assert http.delete(FORMS[0].format(run)).status_code == 202
        seen += "".join(parts)
    assert frames(seen)[-1].event == "flow_cancelled"


@pytest.mark.parametrize("query", ["purge=perhaps", "purge=true&purge=true", "purged=true", "Purge=true"])
def test_a_malformed_purge_parameter_deletes_nothing(http: httpx2.Client, query: str) -> None:
    run = execute(http, "anything")
    assert refusal(http.delete(f"/flow-runs/{run}?{query}"), "purge") == (422, "INVALID_REQUEST")
    assert http.get(f"/flow-runs/{run}/trace").status_code == 200


@pytest.mark.parametrize("form", FORMS)
def test_only_an_admin_key_may_purge(server: RunningServer, http: httpx2.Client, form: str) -> None:
    run = start(server, "endless")
    for role in ("read", "run", "record", "admin"):
        with http_for(server, server.make_key("acme", "demo", role)) as caller:
            if role != "admin":
                assert refusal(caller.delete(form.format(run)), role) == (403, "FORBIDDEN")
            if role != "record":
                assert refusal(caller.delete(form.format(uuid.uuid4()))) == (404, "RUN_NOT_FOUND")
    found = trace_of(http, run)["flowRun"]["status"]
    assert found in ("pending", "running"), "and nothing was cancelled either"
    assert http.delete(form.format(run)).status_code == 202


def test_a_run_that_another_call_purges_meanwhile_is_not_found(
    server: RunningServer, http: httpx2.Client, faults: FaultyStore
) -> None:
    run = execute(http, "anything")
    faults.after("run", lambda record: server.runtime.store.purge_runs([record.no]), times=1)
    assert refusal(http.delete(FORMS[0].format(run))) == (404, "RUN_NOT_FOUND")


def test_a_trace_whose_run_is_purged_while_it_is_read_does_not_pass_for_the_whole(
    server: RunningServer, http: httpx2.Client, faults: FaultyStore
) -> None:
    """Read before, and asked for after it was purged, as the second page of a long trace is."""
    run, store = execute(http, "anything"), server.runtime.store
    record = there(server.call(store.run(run)))

    async def purge(_: object) -> None:
        assert await store.purge_runs([record.no])
        while not await store.purge_rows([record.no], limit_rows=100, limit_bytes=1 << 20):
            pass

    faults.after("attempt_keys", purge)
    assert refusal(http.get(f"/flow-runs/{run}/steps/keep/trace")) == (404, "RUN_NOT_FOUND")


def test_a_wait_for_a_run_that_is_purged_ends_as_not_found(
    server: RunningServer, http: httpx2.Client
) -> None:
    """Without an end in the log that can still be read, the wait would never be over."""
    run = paused(server, http)
    before = replace(there(server.call(server.runtime.store.run(run))), status="running")
    assert http.delete(FORMS[0].format(run)).status_code == 202
    with pytest.raises(APIError, match="RUN_NOT_FOUND"):
        server.call(idle_run(server.runtime, before, beyond=-1))
