"""Runs and flows of other programs: they are read, deleted, exported and imported, and never executed."""

import uuid
from typing import Any

import httpx2
import msgspec
import pytest

from runglass.log.events import FlowCompleted, RunStarted, encode_event
from runglass.log.fold import fold
from runglass.store.records import Append, RunNumbers
from runglass.testing import RunningServer, running_server
from tests.contract.wire import http_for, refusal
from tests.records import new_recording, there

AT = "2026-11-29T12:00:00.000Z"
CALL: dict[str, Any] = {"parameters": {}}
FLOW = b"slug: otel\nsteps: [{id: a, type: passthrough}]\n"


def recorded(server: RunningServer, *, ended: bool = False, trigger: str = "recorded") -> str:
    """The id of a run of the flow `otel`, of which the end is known where it has `ended`."""
    run_id, trace_id = str(uuid.uuid4()), uuid.uuid4().hex

    async def record() -> None:
        store = server.runtime.store
        project = there(await store.find_project("acme", "demo"))
        flow = await store.recorded_flow(project.id, "otel", most=10)
        about = {"trace_id": trace_id, "due_at": AT, "trigger_type": trigger}
        run = there(await store.create_recording(new_recording(project.id, flow.id, id=run_id, **about)))
        begun = RunStarted(
            execution_id=run_id,
            seq=1,
            at=AT,
            run_id=run_id,
            flow_id=flow.id,
            flow_slug="otel",
            step_count=0,
            trigger_type=trigger,
            version=0,
            trace_id=trace_id,
        )
        end = FlowCompleted(execution_id=run_id, seq=2, at=AT, run_id=run_id, summary={})
        events: list[Any] = [begun, end] if ended else [begun]
        summary = fold(events).flow_run
        await store.append(
            Append(
                run_no=run.no,
                head=0,
                fence=run.fence,
                events=[encode_event(event) for event in events],
                status=summary.status,
                summary=msgspec.json.encode(summary),
                ended_at=AT if ended else None,
                numbers=RunNumbers.of(summary),
            )
        )

    server.call(record())
    return run_id


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
    shown, plain = recorded(server), recorded(server, trigger="plain")

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
