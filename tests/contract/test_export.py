"""A run as a file: what is in it, and that it is all of it."""

import json
from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.wire import cancel, detail, execute, frames, start


@pytest.fixture(scope="module")
def run_id(http: httpx2.Client) -> str:
    return execute(http, "words", message="a bb ccc")


def events_of(http: httpx2.Client, run_id: str) -> list[dict[str, Any]]:
    return [frame.data for frame in frames(http.get(f"/flow-runs/{run_id}/trace/stream").text)]


def test_lines_are_a_header_and_then_each_event_byte_for_byte(http: httpx2.Client, run_id: str) -> None:
    answer = http.get(f"/flow-runs/{run_id}/export?format=jsonl")
    assert answer.headers["content-type"] == "application/jsonl"
    first, *lines = answer.text.splitlines()
    header = json.loads(first)
    flow = http.get("/flows/acme/demo/words").json()
    assert header == {
        "format": "runglass-run",
        "formatVersion": 1,
        "runId": run_id,
        "version": 1,
        "capture": "full",
        "triggerType": "api",
        "flow": {
            "id": flow["id"],
            "slug": "words",
            "source": http.get("/flows/acme/demo/words/versions/1").json(),
        },
    }
    stream = http.get(f"/flow-runs/{run_id}/trace/stream").text
    assert lines == [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: ")]


def test_a_document_has_the_header_the_trace_as_it_is_read_and_the_events(
    http: httpx2.Client, run_id: str
) -> None:
    answer = http.get(f"/flow-runs/{run_id}/export")
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    lines = http.get(f"/flow-runs/{run_id}/export?format=jsonl").text.splitlines()
    assert document.pop("trace") == http.get(f"/flow-runs/{run_id}/trace").json()
    assert document.pop("events") == [json.loads(line) for line in lines[1:]]
    assert document == json.loads(lines[0])


def test_both_families_of_paths_answer_alike(http: httpx2.Client, run_id: str) -> None:
    for format in ("json", "jsonl"):
        by_id, by_flow = (
            http.get(f"{base}/{run_id}/export", params={"format": format})
            for base in ("/flow-runs", "/seq/acme/demo/words/runs")
        )
        assert by_id.content == by_flow.content


@pytest.mark.parametrize("format", ["json", "jsonl"])
def test_the_file_gets_a_name_that_says_what_it_is(http: httpx2.Client, run_id: str, format: str) -> None:
    answer = http.get(f"/flow-runs/{run_id}/export", params={"format": format})
    assert answer.headers["content-disposition"] == f'attachment; filename="words-{run_id}.{format}"'


def test_an_unknown_format_is_refused_with_those_that_there_are(http: httpx2.Client, run_id: str) -> None:
    answer = http.get(f"/flow-runs/{run_id}/export?format=xml")
    assert answer.status_code == 422
    assert "json" in detail(answer)["message"]


def test_of_a_run_that_goes_on_it_is_the_part_up_to_now(server: RunningServer, http: httpx2.Client) -> None:
    run_id = start(server, "endless")
    try:
        with http.stream("GET", f"/flow-runs/{run_id}/trace/stream") as stream:
            next(line for line in stream.iter_lines() if line == "event: step_completed")
        document = http.get(f"/flow-runs/{run_id}/export").json()
    finally:
        cancel(server, run_id)
    assert [event["seq"] for event in document["events"]] == list(range(1, len(document["events"]) + 1))
    assert document["trace"]["flowRun"]["status"] == "running"
    assert events_of(http, run_id)[: len(document["events"])] == document["events"]


def test_a_run_without_snapshots_is_exported_without_them(server: RunningServer, http: httpx2.Client) -> None:
    secret = "only-in-the-answer"
    server.push("slug: quiet\ncapture: metadata_only\nsteps: [{id: keep, type: passthrough}]\n")
    run_id = execute(http, "quiet", message=secret)
    for format in ("json", "jsonl"):
        text = http.get(f"/flow-runs/{run_id}/export", params={"format": format}).text
        assert run_id in text
        assert secret not in text
