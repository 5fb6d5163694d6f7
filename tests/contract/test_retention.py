"""Runs and their content go when the server, a project or a flow says so, seen over HTTP."""

import httpx2
import msgspec
import pytest

from runglass.log.events import decode_event
from runglass.log.fold import fold
from runglass.store.records import Retention
from runglass.testing import RunningServer
from tests.contract.wire import BROKEN, WORDS, execute, frames, ran, refusal
from tests.servers import server_with

SECRET = "sesame"
SHORT = "slug: short\nretention_days: 0\nsteps: [{id: keep, type: passthrough}]\n"
LONG = "slug: long\ncontent_retention_days: 100.5\nsteps: [{id: keep, type: passthrough}]\n"


# A server that keeps content until it next tidies up.
server = server_with(WORDS, BROKEN, SHORT, LONG, capture="full", content_retention_days=0)


def tidy(server: RunningServer) -> None:
    server.call(server.runtime.removal.tidy())


@pytest.mark.parametrize("slug", ["words", "broken"])
def test_without_its_content_the_trace_is_still_the_fold_of_the_stream(
    server: RunningServer, http: httpx2.Client, slug: str
) -> None:
    run = ran(http, slug, parameters={"message": f"say {SECRET}"})
    trace, stream = f"/flow-runs/{run}/trace", f"/flow-runs/{run}/trace/stream"
    assert SECRET in http.get(trace).text
    assert SECRET in http.get(stream).text
    before = http.get(trace).json()
    tidy(server)
    left = http.get(trace)
    events = [decode_event(msgspec.json.encode(frame.data)) for frame in frames(http.get(stream).text)]
    assert msgspec.json.encode(fold(events)) == left.content
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    for text in (left.text, http.get(stream).text):
        assert SECRET.upper() not in text.upper()
        assert "it broke" not in text
    before["flowRun"].get("error", {}).pop("message", None)
    for content in ("input", "inputPreview", "result", "resultPreview"):
        before["flowRun"].pop(content, None)
    assert left.json()["flowRun"] == before["flowRun"]
    for now, then in zip(left.json()["steps"], before["steps"], strict=True):
        for field in ("stepId", "attempt", "status", "durationMs", "tokens", "costUsd", "inputSizeBytes"):
            assert now.get(field) == then.get(field)
    if slug == "broken":
        assert left.json()["steps"][-1]["errorContext"]["code"] == "CODE_ERROR"


@pytest.mark.parametrize("slug", ["words", "broken"])
def test_a_run_without_its_content_is_not_run_again_and_its_answer_not_repeated(
    server: RunningServer, http: httpx2.Client, slug: str
) -> None:
    body, headers = {"message": SECRET}, {"Idempotency-Key": slug}
    first, second = (
        http.post(f"/seq/acme/demo/{slug}/execute", json=body, headers=headers) for _ in range(2)
    )
    assert second.content == first.content
    run = http.get("/flow-runs").json()["runs"][0]["id"]
    tidy(server)
    gone = http.post(f"/seq/acme/demo/{slug}/execute", json=body, headers=headers)
    assert refusal(gone) == (410, "ANSWER_EXPIRED")
    refused = http.post(f"/flow-runs/{run}/rerun", json={})
    assert refusal(refused, "it has been removed since (content retention)") == (409, "INPUT_NOT_KEPT")
    assert http.get("/flow-runs").json()["runs"][0]["id"] == run, "nothing was started"


def test_the_flows_retention_comes_before_the_projects(server: RunningServer, http: httpx2.Client) -> None:
    short, kept = (execute(http, slug, parameters={"x": SECRET}) for slug in ("short", "long"))
    tidy(server)
    assert refusal(http.get(f"/flow-runs/{short}/trace")) == (404, "RUN_NOT_FOUND")
    assert SECRET in http.get(f"/flow-runs/{kept}/trace").text

    async def keep(days: float | None) -> None:
        project = await server.runtime.store.ensure_project("acme", "demo")
        await server.runtime.store.set_retention(project.id, Retention(content_days=days))

    server.call(keep(0))
    tidy(server)
    assert SECRET in http.get(f"/flow-runs/{kept}/trace").text
    server.call(keep(1))
    run = execute(http, "words", message=SECRET)
    tidy(server)
    assert SECRET in http.get(f"/flow-runs/{run}/trace").text
    server.call(keep(None))
    tidy(server)
    assert SECRET not in http.get(f"/flow-runs/{run}/trace").text
