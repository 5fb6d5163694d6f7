"""`DELETE` of a run, in both path forms."""

from typing import Any

import httpx2
import pytest
from msgspec.structs import replace

from runglass.engine.journal.run_spec import Segment
from runglass.server.calls.responses import idle_run
from runglass.testing import RunningServer
from runglass.wire.run_api import RunRequest
from tests.contract.wire import detail, execute, frames, http_for, refusal, start
from tests.faulty_store import FaultyStore

FORMS = ["/flow-runs/{}", "/seq/acme/demo/endless/runs/{}"]


@pytest.mark.parametrize("form", FORMS)
def test_a_run_that_goes_on_is_cancelled(server: RunningServer, http: httpx2.Client, form: str) -> None:
    run = start(server, "endless")
    answer = http.delete(form.format(run))
    assert (answer.status_code, answer.headers["content-type"]) == (202, "application/json")
    assert answer.json() == {"executionId": run, "status": "cancelled"}
    last = frames(http.get(f"/flow-runs/{run}/trace/stream").text)[-1]
    assert last.event == "flow_cancelled"
    assert last.data["reason"] == f"cancelled by the key {server.key[:16]}"
    assert http.get(f"/flow-runs/{run}/trace").json()["flowRun"]["status"] == "cancelled"


def test_cancelling_an_ended_run_is_refused_as_run_ended(server: RunningServer, http: httpx2.Client) -> None:
    run = start(server, "endless")
    http.delete(f"/flow-runs/{run}")
    # The stream is only closed once the run has ended.
    assert "flow_cancelled" in http.get(f"/flow-runs/{run}/trace/stream").text
    assert refusal(http.delete(f"/flow-runs/{run}")) == (409, "RUN_ENDED")


def paused(server: RunningServer) -> str:
    """A run of `endless` that waits after its first step."""

    async def submit() -> str:
        runtime = server.runtime
        project = await runtime.store.ensure_project("acme", "demo")
        submitted = await runtime.submit(
            project, "endless", RunRequest(), version=None, trigger_type="step", segment=Segment(last=0)
        )
        run = await runtime.store.run(submitted.run.id)
        assert run is not None
        assert (await idle_run(runtime, run, beyond=0)).status == "paused"
        await runtime.engine.active.join(run.id)
        return run.id

    return server.call(submit())


@pytest.mark.parametrize("form", FORMS)
def test_a_paused_run_is_cancelled_though_no_task_executes_it(
    server: RunningServer, http: httpx2.Client, form: str
) -> None:
    run = paused(server)
    assert http.get(f"/flow-runs/{run}/trace").json()["flowRun"]["status"] == "paused"
    assert http.delete(form.format(run)).status_code == 202
    last = frames(http.get(f"/flow-runs/{run}/trace/stream").text)[-1]
    assert (last.event, last.data["reason"]) == ("flow_cancelled", f"cancelled by the key {server.key[:16]}")
    assert http.get(f"/flow-runs/{run}/trace").json()["flowRun"]["status"] == "cancelled"
    assert refusal(http.delete(form.format(run))) == (409, "RUN_ENDED")


def test_a_run_that_pauses_while_it_is_looked_up_is_cancelled(
    server: RunningServer, http: httpx2.Client, faults: FaultyStore
) -> None:
    run = paused(server)
    faults.after("run", lambda found: replace(found, status="running"), times=1, replaces=True)
    assert http.delete(f"/flow-runs/{run}").status_code == 202
    assert http.get(f"/flow-runs/{run}/trace").json()["flowRun"]["status"] == "cancelled"


@pytest.mark.parametrize("form", ["/flow-runs/{}", "/seq/acme/demo/anything/runs/{}"])
def test_a_run_that_has_ended_is_409(http: httpx2.Client, form: str) -> None:
    run = execute(http, "anything")
    before = http.get(f"/flow-runs/{run}/trace").content
    answer = http.delete(form.format(run))
    assert refusal(answer) == (409, "RUN_ENDED")
    assert detail(answer)["executionId"] == run
    assert http.get(f"/flow-runs/{run}/trace").content == before


def test_a_failed_run_is_409_too(http: httpx2.Client) -> None:
    run = detail(http.post("/seq/acme/demo/broken/execute", json={}))["executionId"]
    assert refusal(http.delete(f"/flow-runs/{run}")) == (409, "RUN_ENDED")


@pytest.mark.parametrize("run", ["01900000-0000-7000-8000-000000000000", "nonsense"])
def test_cancelling_an_unknown_run_is_not_found(http: httpx2.Client, run: str) -> None:
    for form in FORMS:
        assert refusal(http.delete(form.format(run))) == (404, "RUN_NOT_FOUND")
    assert refusal(http.delete(f"/seq/acme/demo/none/runs/{run}")) == (404, "FLOW_NOT_FOUND")


@pytest.fixture
def going(server: RunningServer, http: httpx2.Client) -> Any:
    run = start(server, "endless")
    yield run
    assert http.delete(f"/flow-runs/{run}").status_code == 202


def test_a_run_of_another_project_or_flow_is_unknown_and_goes_on(
    server: RunningServer, http: httpx2.Client, going: str
) -> None:
    assert refusal(http.delete(f"/seq/acme/demo/words/runs/{going}")) == (404, "RUN_NOT_FOUND")
    with http_for(server, server.make_key("acme", "stranger")) as stranger:
        assert refusal(stranger.delete(f"/flow-runs/{going}")) == (404, "RUN_NOT_FOUND")
        assert refusal(stranger.delete(FORMS[1].format(going))) == (404, "FLOW_NOT_FOUND")
    assert http.get(f"/flow-runs/{going}/trace").json()["flowRun"]["status"] in ("pending", "running")


def test_a_reading_key_may_not_cancel_what_it_can_see(
    server: RunningServer, http: httpx2.Client, going: str
) -> None:
    with http_for(server, server.make_key("acme", "demo", "read")) as reader:
        for form in FORMS:
            answer = reader.delete(form.format(going))
            assert refusal(answer) == (403, "FORBIDDEN")
            assert detail(answer)["executionId"] == going
        assert refusal(reader.delete("/flow-runs/nonsense")) == (404, "RUN_NOT_FOUND")
        # Not even the state of the run changes the answer.
        assert refusal(reader.delete(f"/flow-runs/{execute(http, 'anything')}")) == (403, "FORBIDDEN")


def test_a_running_key_may_cancel(server: RunningServer) -> None:
    with http_for(server, server.make_key("acme", "demo", "run")) as runner:
        assert runner.delete(f"/flow-runs/{start(server, 'endless')}").status_code == 202
