"""Runs and flows of other programs: they are read, deleted, exported and imported, and never executed."""

import uuid
from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer, running_server
from tests.browser.sent_traces import run_of, send, span
from tests.contract.wire import http_for, refusal
from tests.servers import server_with

CALL: dict[str, Any] = {"parameters": {}}
FLOW = b"slug: otel\nsteps: [{id: a, type: passthrough}]\n"


# One that ends a run as soon as all of its spans have ended.
server = server_with(recording_settle_s=0)


def recorded(server: RunningServer, *, ended: bool = False, **attributes: Any) -> str:
    """The id of a run of the flow `otel`, of which the end is known where it has `ended`."""
    trace = uuid.uuid4().hex
    about = attributes or {"gen_ai__operation__name": "execute_tool"}
    send(server, span(1, "work", trace=trace, end=1 if ended else None, **about), service="otel")
    return run_of(server, trace, ended=ended)


@pytest.mark.parametrize("path", ["execute", "step", "jobs", "v1/execute"])
def test_a_recorded_flow_is_not_executed(server: RunningServer, http: httpx2.Client, path: str) -> None:
    run = recorded(server)
    for body in (CALL, {**CALL, "executionId": run}):
        assert refusal(http.post(f"/seq/acme/demo/otel/{path}", json=body)) == (409, "RUN_RECORDED")


@pytest.mark.parametrize("form", ["/flow-runs/{}", "/seq/acme/demo/otel/runs/{}"])
def test_a_recorded_run_is_neither_cancelled_nor_run_again(
    server: RunningServer, http: httpx2.Client, form: str
) -> None:
    for run in (recorded(server), recorded(server, ended=True)):
        path = form.format(run)
        assert refusal(http.delete(path)) == (409, "RUN_RECORDED")
        assert refusal(http.post(f"{path}/rerun", json={})) == (409, "RUN_RECORDED")


def test_a_recorded_run_is_deleted_as_it_is(server: RunningServer, http: httpx2.Client) -> None:
    run = recorded(server)
    assert http.get(f"/flow-runs/{run}").json()["status"] == "running"
    assert http.delete(f"/flow-runs/{run}?purge=true").json() == {"executionId": run, "status": "purged"}
    assert refusal(http.get(f"/flow-runs/{run}")) == (404, "RUN_NOT_FOUND")


def test_a_stream_of_a_recorded_run_ends_when_that_is_deleted(
    server: RunningServer, http: httpx2.Client
) -> None:
    run = recorded(server)
    with http.stream("GET", f"/flow-runs/{run}/trace/stream") as stream:
        parts = stream.iter_text()
        assert next(part for part in parts if "run_started" in part)
        assert http.delete(f"/flow-runs/{run}?purge=true").status_code == 202
        assert "".join(parts) == ""


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
