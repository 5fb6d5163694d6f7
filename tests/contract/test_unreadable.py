"""Reading a run whose rows are broken: an error that names it, and no list that goes without the others."""

import re
import sqlite3
from contextlib import closing
from uuid import uuid4

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.collector import collecting
from tests.contract.test_span_export import send_all
from tests.contract.test_tool_calls import paused
from tests.contract.wire import detail, execute, refusal
from tests.unit.engine.test_unreadable import UPDATES


def spoil(server: RunningServer, what: str, run: str) -> None:
    with closing(sqlite3.connect(server.runtime.settings.database)) as database, database:
        assert database.execute(UPDATES[what], (b"\xff{garbage", run)).rowcount >= 1


def test_a_broken_summary_does_not_break_the_list_of_runs(server: RunningServer, http: httpx2.Client) -> None:
    runs = [execute(http, "anything") for _ in range(3)]
    before = http.get("/flow-runs?limit=3").json()["runs"]
    spoil(server, "summary", runs[1])
    listed = http.get("/flow-runs?limit=3").json()["runs"]
    assert [run["id"] for run in listed] == runs[::-1]
    assert [listed[0], listed[2]] == [before[0], before[2]]
    assert listed[1].pop("unreadable")
    assert listed[1].items() <= before[1].items()
    assert (listed[1]["status"], listed[1]["flowSlug"]) == ("completed", "anything")
    page = http.get("/flow-runs?limit=2").json()
    assert [
        run["id"] for run in http.get(f"/flow-runs?limit=1&cursor={page['nextCursor']}").json()["runs"]
    ] == [runs[0]]


@pytest.mark.parametrize("what", ["summary", "step", "event"])
def test_what_cannot_be_read_is_an_error_that_names_the_run(
    server: RunningServer, http: httpx2.Client, what: str
) -> None:
    by_slug = "/seq/acme/demo/broken"
    run = http.post(f"{by_slug}/jobs", json={}).json()["executionId"]
    http.get(f"/flow-runs/{run}/trace/stream")
    spoil(server, what, run)
    paths = {
        "summary": [f"/flow-runs/{run}/trace", f"{by_slug}/runs/{run}/trace"],
        "step": [f"/flow-runs/{run}/trace", f"/flow-runs/{run}/steps/bad/trace"],
        "event": [f"{by_slug}/jobs/{run}"],
    }
    for path in paths[what]:
        answer = http.get(path)
        assert refusal(answer, run, "export-raw") == (500, "INTERNAL_ERROR")
        assert detail(answer)["executionId"] == run


def test_a_stream_ends_before_an_event_that_cannot_be_read(
    server: RunningServer, http: httpx2.Client
) -> None:
    run = execute(http, "anything")
    spoil(server, "event", run)
    answer = http.get(f"/flow-runs/{run}/trace/stream")
    assert (answer.status_code, answer.text) == (200, "retry: 1000\n\n")


def test_a_session_shows_the_other_runs_whole(server: RunningServer, http: httpx2.Client) -> None:
    headers = {"X-Session-Id": str(uuid4())}
    runs = [
        http.post("/seq/acme/demo/anything/execute", json={}, headers=headers).json()["executionId"]
        for _ in range(2)
    ]
    spoil(server, "step", runs[0])
    broken, whole = http.get(f"/seq/sessions/{headers['X-Session-Id']}").json()["executions"]
    assert (broken["executionId"], broken["status"], broken["steps"]) == (runs[0], "completed", [])
    assert [step["stepId"] for step in whole["steps"]] == ["keep"]


def test_a_run_with_fractions_of_tokens_is_read_cancelled_and_deleted(
    server: RunningServer, http: httpx2.Client
) -> None:
    server.push("slug: fractions\nsteps:\n- {id: ask, type: llm, model: echo, prompt: Hi}")
    run = paused(http, "/seq/acme/demo/fractions/execute", trace=True)["executionId"]
    with closing(sqlite3.connect(server.runtime.settings.database)) as database, database:
        database.create_function(
            "halved", 1, lambda data: re.sub(rb'"(prompt|total)":([0-9]+)', rb'"\1":\2.5', data)
        )
        (no,) = database.execute("SELECT no FROM run WHERE id = ?", (run,)).fetchone()
        database.execute("UPDATE run SET summary = halved(summary) WHERE no = ?", (no,))
        for table in ("event", "step"):
            database.execute(f"UPDATE {table} SET data = halved(data) WHERE run_no = ?", (no,))
    assert run in [each["id"] for each in http.get("/flow-runs?limit=100").json()["runs"]]
    assert http.delete(f"/seq/acme/demo/fractions/runs/{run}").status_code == 202
    assert http.get(f"/flow-runs/{run}").json()["totals"]["tokens"]["prompt"] == 1.5
    reads = ["trace", "trace/stream", "trace/outline", "trace/timeline", f"diff/{run}"]
    for read in [*reads, *(f"export?format={kind}" for kind in ("json", "jsonl", "otlp", "perfetto"))]:
        answer = http.get(f"/flow-runs/{run}/{read}")
        assert answer.status_code == 200, (read, answer.text)
    assert http.delete(f"/seq/acme/demo/fractions/runs/{run}?purge=true").status_code == 202
    assert http.get(f"/flow-runs/{run}").status_code == 404


@pytest.mark.parametrize("what", ["summary", "step"])
def test_a_run_that_cannot_be_read_keeps_no_other_from_being_sent_as_spans(
    server: RunningServer, http: httpx2.Client, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.call(server.runtime.store.span_cursors())
    with collecting() as collector:
        # What other tests have left behind goes first.
        send_all(server, collector)
        runs = [execute(http, "anything") for _ in range(3)]
        spoil(server, what, runs[1])
        send_all(server, collector)
        assert [bool(collector.spans(run)) for run in runs] == [True, False, True]
    assert any("not sent on" in line.message and runs[1] in line.message for line in caplog.records)
