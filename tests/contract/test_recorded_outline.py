"""What a program has sent, read as any run: its outline, steps, timeline, comparison and files."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer, running_server
from tests.browser.sent_traces import TICKET, TRACE, call, run_of, send
from tests.contract.wire import http_for

OTHER = "22" * 16


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(recording_settle_s=0) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: RunningServer) -> Iterator[httpx2.Client]:
    with http_for(server, server.key) as client:
        yield client


@pytest.fixture(scope="module")
def ticket(server: RunningServer) -> str:
    send(server, *TICKET)
    return run_of(server, ended=True)


def outline_of(http: httpx2.Client, run: str) -> dict[str, Any]:
    found: dict[str, Any] = http.get(f"/flow-runs/{run}/trace/outline").json()
    return found


def test_its_outline_is_the_tree_of_its_spans_and_adds_up_to_its_totals(
    http: httpx2.Client, ticket: str
) -> None:
    outline = outline_of(http, ticket)
    columns = outline["columns"]
    tree = [
        f"{'  ' * columns['depth'][row]}{outline['names'][columns['name'][row]]}"
        for row in range(outline["rowCount"])
    ]
    assert tree == [
        "POST /tickets",
        "  answer ticket",
        "    chat gpt-4o",
        "    chat gpt-4o",
        "    execute_tool refund",
        "    chat gpt-4o",
        "not received",
        "  follow-up",
    ]
    marks = outline["recorded"]
    assert (marks["context"], marks["retryOf"], marks["unattributed"]) == ([0], [[3, 2]], [[1, 860, None]])
    totals = http.get(f"/flow-runs/{ticket}").json()["totals"]
    assert (columns["tokens"][0], columns["cost"][0]) == (totals["tokens"]["total"], totals["costUsd"])


def test_each_row_leads_to_its_step(http: httpx2.Client, ticket: str) -> None:
    outline = outline_of(http, ticket)
    columns, marks = outline["columns"], outline["recorded"]
    spans = []
    for name, index, position in zip(columns["name"], columns["index"], columns["position"], strict=True):
        if position:
            where = {"loop_index": index, "position": position}
            step_id = marks["stepIds"][name]
            step = http.get(f"/flow-runs/{ticket}/steps/{step_id}/trace", params=where).json()
            assert step["name"] == outline["names"][name]
            spans.append(int(step["spanId"], 16))
    assert spans == [1, 2, 3, 4, 5, 6, 8]


def test_its_timeline_has_a_lane_for_each_span_at_the_top(http: httpx2.Client, ticket: str) -> None:
    timeline = http.get(f"/flow-runs/{ticket}/trace/timeline").json()
    assert [lane["name"] for lane in timeline["lanes"]] == ["POST /tickets", "not received"]
    assert timeline["to"] > 3000


def test_another_run_of_the_same_program_is_compared_by_the_names_in_its_tree(
    server: RunningServer, http: httpx2.Client, ticket: str
) -> None:
    more = [
        call(12, 2, start=1810, end=1850, tokens=(5, 5), trace=OTHER),
        *({**each, "traceId": OTHER} for each in reversed(TICKET)),
    ]
    send(server, *more)
    other = run_of(server, OTHER, ended=True)
    diff = http.get(f"/flow-runs/{ticket}/diff/{other}", params={"all": "true"}).json()
    rows = [(row["stepId"], row.get("loopPath"), row["inA"], row["inB"]) for row in diff["rows"]]
    assert rows == [
        ("POST__tickets", [0], True, True),
        ("answer_ticket", [0], True, True),
        ("chat_gpt-4o", [0], True, True),
        ("chat_gpt-4o", [1], True, True),
        ("execute_tool_refund", [0], True, True),
        ("chat_gpt-4o", [2], True, True),
        ("chat_gpt-4o", [1], False, True),
        ("follow-up", [0], True, True),
    ]
    (third,) = [row for row in diff["rows"] if row["stepId"] == "chat_gpt-4o" and row.get("loopPath") == [2]]
    assert third["loopPathB"] == [0]


@pytest.mark.parametrize("form", ["perfetto", "otlp"])
def test_it_is_exported(http: httpx2.Client, ticket: str, form: str) -> None:
    answer = http.get(f"/flow-runs/{ticket}/export", params={"format": form})
    assert answer.status_code == 200
    assert "execute_tool refund" in answer.text


def test_what_comes_after_its_end_is_a_run_that_it_names(
    server: RunningServer, http: httpx2.Client, ticket: str
) -> None:
    send(server, call(20, 2, start=4000, end=4100))
    late = run_of(server, TRACE, ended=True)
    assert late != ticket
    assert http.get(f"/flow-runs/{ticket}").json()["continuedBy"] == late
    about = http.get(f"/flow-runs/{late}").json()
    assert (about["recording"]["continues"], about.get("continuedBy")) == (ticket, None)
