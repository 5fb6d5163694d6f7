"""`DELETE` of a run, in both path forms. Who may cancel which is in `test_roles.py`."""

from collections.abc import Callable

import httpx2
import pytest
from msgspec.structs import replace

from runglass.testing import RunningServer
from tests.contract.wire import detail, frames, ran, refusal, start
from tests.faulty_store import FaultyStore

FORMS = ["/flow-runs/{}", "/seq/acme/demo/{slug}/runs/{}"]


def active(server: RunningServer, http: httpx2.Client) -> str:
    """A run of `endless` that has begun, or is about to."""
    return start(server, "endless")


def paused(server: RunningServer, http: httpx2.Client) -> str:
    """A run of `endless` that waits after its first step."""
    walked = frames(http.post("/seq/acme/demo/endless/step", json={}).text)
    assert walked[-1].event == "step_paused"
    return str(walked[0].data["executionId"])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("begun", [active, paused])
def test_a_run_that_goes_on_or_waits_is_cancelled_once(
    server: RunningServer, http: httpx2.Client, begun: Callable[..., str], form: str
) -> None:
    run = begun(server, http)
    path = form.format(run, slug="endless")
    answer = http.delete(path)
    assert (answer.status_code, answer.headers["content-type"]) == (202, "application/json")
    assert answer.json() == {"executionId": run, "status": "cancelled"}
    assert http.get(f"/flow-runs/{run}/trace").json()["flowRun"]["status"] == "cancelled"
    last = frames(http.get(f"/flow-runs/{run}/trace/stream").text)[-1]
    assert (last.event, last.data["reason"]) == ("flow_cancelled", f"cancelled by the key {server.key[:16]}")
    assert refusal(http.delete(path)) == (409, "RUN_ENDED")


def test_a_run_that_pauses_while_it_is_looked_up_is_cancelled(
    server: RunningServer, http: httpx2.Client, faults: FaultyStore
) -> None:
    run = paused(server, http)
    faults.after("run", lambda found: replace(found, status="running"), times=1, replaces=True)
    assert http.delete(f"/flow-runs/{run}").status_code == 202
    assert http.get(f"/flow-runs/{run}/trace").json()["flowRun"]["status"] == "cancelled"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("slug", ["anything", "broken"])
def test_a_run_that_has_ended_is_409_and_stays_as_it_is(http: httpx2.Client, slug: str, form: str) -> None:
    run = ran(http, slug)
    before = http.get(f"/flow-runs/{run}/trace").content
    answer = http.delete(form.format(run, slug=slug))
    assert refusal(answer) == (409, "RUN_ENDED")
    assert detail(answer)["executionId"] == run
    assert http.get(f"/flow-runs/{run}/trace").content == before


def test_a_run_is_not_cancelled_below_another_flow(server: RunningServer, http: httpx2.Client) -> None:
    run = active(server, http)
    assert refusal(http.delete(f"/seq/acme/demo/words/runs/{run}")) == (404, "RUN_NOT_FOUND")
    assert http.get(f"/flow-runs/{run}/trace").json()["flowRun"]["status"] in ("pending", "running")
    assert http.delete(f"/flow-runs/{run}").status_code == 202
