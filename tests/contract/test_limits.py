"""A rate limit per key and a project's budget, as callers meet them."""

from collections.abc import Iterator
from functools import partial

import httpx2
import pytest

from runglass.limits.limits import Rates
from runglass.testing import RunningServer, running_server
from tests.contract.test_viewer import signed_in
from tests.contract.wire import ANYTHING, detail, frames, http_for, refusal, set_budget

PER_MINUTE = 6


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """One whose clock stands still for its limits of rate."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runglass.limits.limits.Rates", partial(Rates, clock=lambda: 0.0))
        with running_server(rate_limit_per_minute=PER_MINUTE) as running:
            running.push(ANYTHING)
            yield running


@pytest.fixture
def eager(server: RunningServer) -> Iterator[httpx2.Client]:
    """A caller with a key of its own that has used up its minute."""
    with http_for(server, server.make_key("acme", "demo")) as http:
        statuses = [http.get("/flow-runs").status_code for _ in range(PER_MINUTE)]
        assert statuses == [200] * PER_MINUTE
        yield http


def test_one_request_too_many_gets_a_retry_after_whatever_its_path(eager: httpx2.Client) -> None:
    answer = eager.post("/seq/acme/demo/anything/execute", json={})
    assert refusal(answer, "6 times a minute") == (429, "RATE_LIMITED")
    assert answer.headers["retry-after"] == "10"
    for path in ("/flow-runs/x/trace/stream", "/no/such/path"):
        assert refusal(eager.get(path)) == (429, "RATE_LIMITED")


def test_open_endpoints_have_no_rate_limit(server: RunningServer) -> None:
    with http_for(server, None) as nobody:
        for path in ("/health", "/api/v1/schemas/flow.json"):
            statuses = {nobody.get(f"{server.address}{path}").status_code for _ in range(PER_MINUTE + 10)}
            assert statuses == {200}


def test_a_stream_counts_once_however_long_it_is(server: RunningServer) -> None:
    with http_for(server, server.make_key("acme", "demo")) as http:
        run = http.post("/seq/acme/demo/anything/execute", json={}).json()["executionId"]
        assert http.get(f"/flow-runs/{run}/trace/stream").text.count("event: ") > 2
        statuses = [http.get("/flow-runs").status_code for _ in range(PER_MINUTE - 2)]
        assert statuses == [200] * (PER_MINUTE - 2)
        assert refusal(http.get("/flow-runs")) == (429, "RATE_LIMITED")


def test_more_keys_do_not_raise_the_limit_of_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runglass.limits.limits.Rates", partial(Rates, clock=lambda: 0.0))
    limits = {"rate_limit_per_minute": 100, "project_rate_limit_per_minute": 20, "max_keys_per_project": 6}
    with running_server(**limits) as server, http_for(server, server.key) as admin:
        minted = [admin.post("/keys", json={"role": "run"}) for _ in range(6)]
        assert [answer.status_code for answer in minted] == [201] * 5 + [403]
        refused = detail(minted[-1])
        assert refused["code"] == "FORBIDDEN"
        assert "limit of keys of this project, 6," in refused["message"]
        assert "`max_keys_per_project`" in refused["message"]
        answers = []
        for key in [answer.json()["key"] for answer in minted[:5]]:
            with http_for(server, key) as http:
                answers += [http.get("/flow-runs") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200] * 14 + [429] * 6
        assert "`project_rate_limit_per_minute`" in detail(answers[-1])["message"]
        with http_for(server, server.make_key("acme", "other")) as other:
            assert other.get("/flow-runs").status_code == 200


def test_a_paused_run_outlives_a_spent_budget(server: RunningServer) -> None:
    server.push("slug: two\nsteps: [{id: a, type: passthrough}, {id: b, type: passthrough}]", project="low")

    with http_for(server, server.make_key("acme", "low")) as http:
        path = "/seq/acme/low/two/step"
        run = frames(http.post(path, json={}).text)[0].data["executionId"]
        set_budget(server, "0", project="low")
        body = {"executionId": run, "stepIndex": 1}
        assert refusal(http.post(path, json=body)) == (402, "INSUFFICIENT_CREDITS")
        set_budget(server, None, project="low")
        assert frames(http.post(path, json=body).text)[-1].event == "flow_completed"


def test_a_session_of_a_browser_counts_against_the_rate_of_its_key(server: RunningServer) -> None:
    key = server.make_key("acme", "demo")
    with signed_in(server, key) as browser, http_for(server, key) as http:
        statuses = [browser.get("/viewer/me").status_code for _ in range(PER_MINUTE)]
        assert statuses == [200] * (PER_MINUTE - 1) + [429]
        assert refusal(http.get("/viewer/me")) == (429, "RATE_LIMITED")
