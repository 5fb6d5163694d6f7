"""A rate limit per key and a project's budget, as callers meet them."""

from collections.abc import Iterator
from decimal import Decimal
from functools import partial

import httpx2
import pytest

from runglass import AsyncClient, Client
from runglass.client.transport.blocking import SyncTransport
from runglass.client.transport.on_asyncio import AsyncTransport
from runglass.errors import RateLimitError
from runglass.limits.rate import Rates
from runglass.store.records import Project
from runglass.testing import RunningServer, running_server
from tests.contract.wire import ANYTHING, detail, frames, http_for, refusal

PER_MINUTE = 6


class Clock:
    """The clock of the server's rate limit: it stands still until a client waits."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.waits_s: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.waits_s.append(seconds)
        self.now_s += seconds

    async def await_(self, seconds: float) -> None:
        self.wait(seconds)


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def server(clock: Clock) -> Iterator[RunningServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runglass.limits.limits.Rates", partial(Rates, clock=clock))
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


def test_one_request_too_many_gets_a_retry_after(eager: httpx2.Client) -> None:
    answer = eager.post("/seq/acme/demo/anything/execute", json={})
    assert refusal(answer) == (429, "RATE_LIMITED")
    assert answer.headers["retry-after"] == "10"
    assert "6 times a minute" in detail(answer)["message"]


def test_no_path_below_the_api_is_a_way_around_the_limit(eager: httpx2.Client) -> None:
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


def use_up(server: RunningServer, key: str) -> None:
    with http_for(server, key) as http:
        while http.get("/flow-runs").status_code == 200:
            pass


def test_the_client_waits_as_long_as_the_server_asks(
    server: RunningServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = server.make_key("acme", "demo")
    use_up(server, key)
    with Client(key, base_url=server.base_url, max_retries=0) as hasty:
        with pytest.raises(RateLimitError) as refused:
            hasty.runs()
        assert refused.value.retry_after_s == 10
    clock.waits_s.clear()
    with Client(key, base_url=server.base_url) as patient:
        monkeypatch.setattr(SyncTransport, "sleep", lambda _, seconds: clock.wait(seconds))
        # Not only a reading is tried again: the server promises that nothing was started.
        assert patient.flow("acme/demo/anything").execute().result == {}
    assert clock.waits_s == [10]


async def test_the_asyncio_client_waits_too(
    server: RunningServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = server.make_key("acme", "demo")
    use_up(server, key)
    clock.waits_s.clear()
    async with AsyncClient(key, base_url=server.base_url) as patient:
        monkeypatch.setattr(AsyncTransport, "sleep", lambda _, seconds: clock.await_(seconds))
        assert (await patient.flow("acme/demo/anything").execute()).result == {}
    assert clock.waits_s == [10]


def test_more_keys_do_not_raise_the_limit_of_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runglass.limits.limits.Rates", partial(Rates, clock=Clock()))
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


@pytest.mark.parametrize(
    ("budget_usd", "spent_usd", "is_spent"),
    [
        (None, Decimal(10**15), False),
        (Decimal("0.2"), Decimal("0.19999999999999999999999999999999"), False),
        (Decimal("0.2"), Decimal("0.20"), True),
        (Decimal(2), Decimal(3), True),
        (Decimal(0), Decimal(0), True),
    ],
)
def test_a_budget_is_spent_when_nothing_of_it_is_left(
    budget_usd: Decimal | None, spent_usd: Decimal, is_spent: bool
) -> None:
    project = Project(id=1, org="acme", name="demo", budget_usd=budget_usd, spent_usd=spent_usd)
    assert project.is_spent is is_spent


@pytest.mark.parametrize("path", ["execute", "v1/execute", "jobs", "v1/jobs", "v1/step"])
def test_a_call_on_a_spent_budget_starts_nothing(server: RunningServer, path: str) -> None:
    server.push(ANYTHING, org="acme", project="poor")

    async def set_budget(budget_usd: Decimal | None) -> None:
        project = await server.runtime.store.ensure_project("acme", "poor")
        await server.runtime.store.set_budget(project.id, budget_usd)

    with http_for(server, server.make_key("acme", "poor")) as http:
        before = http.get("/flow-runs").json()
        server.call(set_budget(Decimal(0)))
        assert refusal(http.post(f"/seq/acme/poor/anything/{path}", json={})) == (402, "INSUFFICIENT_CREDITS")
        assert http.get("/flow-runs").json() == before
        server.call(set_budget(None))
        assert http.post(f"/seq/acme/poor/anything/{path}", json={}).status_code in (200, 202)


def test_a_paused_run_outlives_a_spent_budget(server: RunningServer) -> None:
    server.push("slug: two\nsteps: [{id: a, type: passthrough}, {id: b, type: passthrough}]", project="low")

    async def set_budget(budget_usd: Decimal | None) -> None:
        project = await server.runtime.store.ensure_project("acme", "low")
        await server.runtime.store.set_budget(project.id, budget_usd)

    with http_for(server, server.make_key("acme", "low")) as http:
        path = "/seq/acme/low/two/step"
        run = frames(http.post(path, json={}).text)[0].data["executionId"]
        server.call(set_budget(Decimal(0)))
        body = {"executionId": run, "stepIndex": 1}
        assert refusal(http.post(path, json=body)) == (402, "INSUFFICIENT_CREDITS")
        server.call(set_budget(None))
        assert frames(http.post(path, json=body).text)[-1].event == "flow_completed"
