"""Runs and flows of other programs: they are read, deleted, exported and imported, and never executed."""

import uuid
from typing import Any

import httpx2
import pytest

from runglass import Client
from runglass.log.fold import fold
from runglass.testing import RunningServer, running_server
from tests.browser.sent_traces import TICKET, TRACE, Json, call, run_of, send, span
from tests.contract.wire import http_for, read, refusal
from tests.outlines import rows_in
from tests.servers import server_with

FOLLOWED, GOING = "11" * 16, "22" * 16
SEVERAL = ("33" * 16, "44" * 16)
FAILED = {1: None, 2: "no"}
CALL: Json = {"parameters": {}}
FLOW = b"slug: otel\nsteps: [{id: a, type: passthrough}]\n"


# One that ends a run as soon as all of its spans have ended.
server = server_with(recording_settle_s=0)


def tool(number: int, parent: int | None = None, *, trace: str, name: str = "work", **more: Any) -> Json:
    return span(number, name, parent, trace=trace, gen_ai__operation__name="execute_tool", **more)


def test_a_recorded_run_is_followed_to_its_end(server: RunningServer) -> None:
    agent: dict[str, Any] = {"trace": FOLLOWED, "name": "agent", "input__value": "hi"}
    send(server, tool(1, end=None, **agent), tool(2, 1, trace=FOLLOWED))
    with Client(server.key, base_url=server.base_url) as client:
        run = client.run(run_of(server, FOLLOWED))
        assert run.trace().flow_run.input == {"inputs": {"text": "hi"}}, "as soon as it is known"
        assert [step.status for step in run.trace().steps] == ["running", "completed"]
        events: list[Any] = []
        for event in run.live_trace():
            events.append(event)
            if len(events) == 3:
                send(server, tool(1, output__value="bye", **agent), tool(3, 2, trace=FOLLOWED))
        trace = run.trace()
    assert [event.event_type for event in events] == [
        "run_started",
        *["step_recorded"] * 4,
        "run_input",
        "flow_completed",
    ]
    assert trace.flow_run.input == {"inputs": {"text": "hi"}}
    assert trace.flow_run.result == {"text": "bye"}
    assert [step.parent_span_id for step in trace.steps] == [None, f"{1:016x}", f"{2:016x}"]
    assert fold(events).steps == trace.steps


@pytest.mark.parametrize("path", ["trace/outline", "trace/timeline", "export?format=otlp", "export", "diff"])
def test_what_goes_on_is_read_as_any_other_run(server: RunningServer, http: httpx2.Client, path: str) -> None:
    send(server, tool(1, end=None, trace=GOING), tool(2, 1, trace=GOING), tool(3, 2, trace=GOING))
    run_id = run_of(server, GOING)
    answer = http.get(f"/flow-runs/{run_id}/{f'diff/{run_id}' if path == 'diff' else path}")
    assert answer.status_code == 200, answer.text
    assert b"work" in answer.content


@pytest.fixture(scope="module")
def ticket(server: RunningServer) -> str:
    send(server, *TICKET)
    return run_of(server, ended=True)


def test_its_outline_is_the_tree_of_its_spans_and_adds_up_to_its_totals(
    http: httpx2.Client, ticket: str
) -> None:
    outline = http.get(f"/flow-runs/{ticket}/trace/outline")
    rows = rows_in(outline.content)
    assert ["  " * row["depth"] + row["name"] for row in rows] == [
        "POST /tickets",
        "  answer ticket",
        "    chat gpt-4o",
        "    chat gpt-4o",
        "    execute_tool refund",
        "    chat gpt-4o",
        "not received",
        "  follow-up",
    ]
    marks = outline.json()["recorded"]
    assert (marks["context"], marks["retryOf"], marks["unattributed"]) == ([0], [[3, 2]], [[1, 860, None]])
    totals = read(http, f"/flow-runs/{ticket}")["totals"]
    assert (rows[0]["tokens"], rows[0]["cost"]) == (totals["tokens"]["total"], totals["costUsd"])


def test_each_row_leads_to_its_step(http: httpx2.Client, ticket: str) -> None:
    outline = read(http, f"/flow-runs/{ticket}/trace/outline")
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


def test_its_spans_as_a_file_tell_another_project_the_same(
    server: RunningServer, http: httpx2.Client, ticket: str
) -> None:
    file = http.get(f"/flow-runs/{ticket}/export?format=otlp").json()
    kinds = {span["name"]: span["kind"] for span in file["resourceSpans"][0]["scopeSpans"][0]["spans"]}
    assert (kinds["chat gpt-4o"], kinds["answer ticket"]) == (3, 1)
    with http_for(server, server.make_key("acme", "elsewhere")) as elsewhere:
        assert elsewhere.post(f"{server.address}/v1/traces", json=file).json() == {}
        (run,) = elsewhere.get("/flow-runs").json()["runs"]
        again = elsewhere.get(f"/flow-runs/{run['id']}/trace").json()
    trace = http.get(f"/flow-runs/{ticket}/trace").json()
    assert again["flowRun"]["recording"] == trace["flowRun"]["recording"]
    told = ("name", "kind", "status", "parentSpanId", "startTimeUnixNano", "completedAt", "tokens")
    content = ("errorContext", "events", "links")
    assert {step["spanId"]: [step.get(name) for name in told + content] for step in again["steps"]} == {
        step["spanId"]: [step.get(name) for name in told + content] for step in trace["steps"]
    }


def test_its_file_says_nothing_of_its_spans_that_nobody_has_said() -> None:
    def resource_of(trace: str) -> Json:
        run_id = run_of(server, trace)
        (told,) = http.get(f"/flow-runs/{run_id}/export?format=otlp").json()["resourceSpans"]
        (failed,) = [each for each in told["scopeSpans"][0]["spans"] if "status" in each]
        assert "error.type" not in [each["key"] for each in failed["attributes"]]
        return {each["key"]: each["value"]["stringValue"] for each in told["resource"]["attributes"]}

    def tell(trace: str, number: int, **more: Any) -> None:
        send(server, tool(number, None if number == 1 else 1, trace=trace, failed=FAILED[number]), **more)

    # One that ends no run between two requests.
    with running_server() as server, http_for(server, server.key) as http:
        tell(SEVERAL[0], 2, service="back", service__version="9", deployment__environment__name="live")
        tell(SEVERAL[0], 1, service="front")
        assert resource_of(SEVERAL[0]) == {"service.name": "front"}
        for number, version in ((2, "8"), (1, "9")):
            tell(SEVERAL[1], number, service__version=version, deployment__environment__name="live")
        assert resource_of(SEVERAL[1]) == {"service.name": "tickets", "deployment.environment.name": "live"}


def test_what_comes_after_its_end_is_a_run_that_it_names(
    server: RunningServer, http: httpx2.Client, ticket: str
) -> None:
    send(server, call(20, 2, start=4000, end=4100))
    late = run_of(server, TRACE, ended=True)
    assert late != ticket
    assert http.get(f"/flow-runs/{ticket}").json()["continuedBy"] == late
    about = http.get(f"/flow-runs/{late}").json()
    assert (about["recording"]["continues"], about.get("continuedBy")) == (ticket, None)


def recorded(server: RunningServer, *, ended: bool = False, **attributes: Any) -> str:
    """The id of a run of the flow `otel`, of which the end is known where it has `ended`."""
    trace = uuid.uuid4().hex
    about = attributes or {"gen_ai__operation__name": "execute_tool"}
    send(server, span(1, "work", trace=trace, end=1 if ended else None, **about), service="otel")
    return run_of(server, trace, ended=ended)


@pytest.mark.parametrize("path", ["execute", "step", "jobs", "v1/execute"])
def test_a_recorded_flow_is_not_executed_and_its_run_neither_cancelled_nor_run_again(
    server: RunningServer, http: httpx2.Client, path: str
) -> None:
    for run in (recorded(server), recorded(server, ended=True)):
        for body in (CALL, {**CALL, "executionId": run}):
            assert refusal(http.post(f"/seq/acme/demo/otel/{path}", json=body)) == (409, "RUN_RECORDED")
        for own in (f"/flow-runs/{run}", f"/seq/acme/demo/otel/runs/{run}"):
            assert refusal(http.delete(own)) == (409, "RUN_RECORDED")
            assert refusal(http.post(f"{own}/rerun", json={})) == (409, "RUN_RECORDED")


def test_a_recorded_run_is_deleted_as_it_is_and_its_stream_ends(
    server: RunningServer, http: httpx2.Client
) -> None:
    run = recorded(server)
    assert http.get(f"/flow-runs/{run}").json()["status"] == "running"
    with http.stream("GET", f"/flow-runs/{run}/trace/stream") as stream:
        parts = stream.iter_text()
        assert next(part for part in parts if "run_started" in part)
        purged = http.delete(f"/flow-runs/{run}?purge=true")
        assert (purged.status_code, purged.json()) == (202, {"executionId": run, "status": "purged"})
        assert "".join(parts) == ""
    assert refusal(http.get(f"/flow-runs/{run}")) == (404, "RUN_NOT_FOUND")


def test_a_recorded_flow_is_listed_and_not_pushed(server: RunningServer, http: httpx2.Client) -> None:
    recorded(server)
    (flow,) = [each for each in http.get("/flows").json()["flows"] if each["slug"] == "otel"]
    assert (flow["recorded"], flow["productionVersion"]) == (True, None)
    for method, path in (("PUT", ""), ("POST", "/publish")):
        answer = http.request(method, f"/flows/acme/demo/otel{path}", content=FLOW)
        assert refusal(answer) == (409, "FLOW_RECORDED")
    pushed = http.put("/flows/acme/demo/mine", content=FLOW.replace(b"otel", b"mine")).json()
    assert "recorded" not in pushed


def test_a_list_shows_plain_runs_where_it_is_asked_for_them(
    server: RunningServer, http: httpx2.Client
) -> None:
    shown, plain = recorded(server), recorded(server, http__route="/")

    def listed(**query: str) -> set[str]:
        found = http.get("/flow-runs", params=query).json()["runs"]
        return {run["id"] for run in found} & {shown, plain}

    assert listed() == {shown} == listed(q="kind:recorded")
    assert listed(q="kind:plain") == {plain}
    assert listed(q="flow:otel kind:plain,recorded") == {shown, plain}


def test_a_recorded_run_without_its_trace_is_not_imported(server: RunningServer, http: httpx2.Client) -> None:
    run = recorded(server, ended=True)
    file = http.get(f"/flow-runs/{run}/export?format=jsonl").text.replace(run, str(uuid.uuid4()))
    begin = file.index(',"traceId":"')
    answer = http.post("/flow-runs/import", content=(file[:begin] + file[begin + 45 :]).encode())
    assert refusal(answer, "a recorded run, and no other, has a `traceId`") == (422, "INVALID_REQUEST")


def test_an_imported_run_is_recorded_as_well(server: RunningServer, http: httpx2.Client) -> None:
    run = recorded(server, ended=True)
    for form in ("jsonl", "json"):
        file = http.get(f"/flow-runs/{run}/export?format={form}").content
        with running_server() as other, http_for(other, other.key) as there:
            imported = there.post("/flow-runs/import", content=file)
            assert (imported.status_code, imported.json()["triggerType"]) == (201, "recorded")
            (flow,) = there.get("/flows").json()["flows"]
            assert (flow["slug"], flow["recorded"]) == ("otel", True)
            assert there.get(f"/flow-runs/{run}/export?format={form}").content == file


def test_a_diff_says_which_run_alone_has_a_span_in_the_same_order_whichever_is_the_older(
    server: RunningServer, http: httpx2.Client
) -> None:
    runs: list[str] = []
    for own in ("less", "more"):
        trace = uuid.uuid4().hex
        same = [tool(1, None, trace=trace), tool(2, 1, trace=trace), tool(3, 1, trace=trace, failed="no")]
        # The order in which they come says nothing.
        send(server, *same[:: -1 if runs else 1], tool(4, 1, trace=trace, name=own))
        runs.append(run_of(server, trace, ended=True))
    for a, b in (runs, runs[::-1]):
        rows = http.get(f"/flow-runs/{a}/diff/{b}").json()["rows"]
        assert [(row["stepId"], row["inA"], row["inB"]) for row in rows] == [
            ("more", a == runs[1], b == runs[1]),
            ("less", a == runs[0], b == runs[0]),
        ]
