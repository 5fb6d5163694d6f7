"""Servers that leave the execution of runs to another process on the same database."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import NamedTuple
from uuid import uuid4

import httpx2
import pytest

from runglass.config.settings import SettingsError
from runglass.runtime.runtime import FixedLimits
from runglass.testing import RunningServer, running_server
from tests.contract import wire
from tests.contract.test_failover import behind_a_proxy
from tests.contract.test_owed_answers import expire
from tests.contract.test_refusals import KEYLESS
from tests.contract.test_tool_calls import TALK, results_of, resumption
from tests.contract.test_tool_calls import paused as paused_for_tools
from tests.faulty_store import FaultyStore
from tests.postgres_server import fetched, postgres_database
from tests.waiting import eventually

pytestmark = pytest.mark.slow

OFF = """
slug: off
capture: "off"
steps:
  - {id: one, type: code, code: 'return {"said": message}'}
  - id: many
    type: loop
    over: '[1, 2, 3]'
    steps: [{id: each, type: code, code: 'return {"said": initial["message"]}'}]
  - id: bad
    type: code
    code: 'raise ValueError(initial["message"])'
    retry: {max_attempts: 2, initial_delay_ms: 0}
"""


class Machines(NamedTuple):
    """Two servers that execute nothing, and a process that executes their runs."""

    one: RunningServer
    other: RunningServer
    worker: RunningServer
    address: str


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    with ExitStack() as opened:
        address = opened.enter_context(postgres_database())
        # A cancel that came by the poll would be told as not recorded.
        limits = FixedLimits(poll_s=60.0)
        worker, one, other = (
            opened.enter_context(
                running_server(limits, store=address, capture="full", executes_runs=executes)
            )
            for executes in (True, False, False)
        )
        for flow in (wire.ENDLESS, wire.WORDS, TALK, OFF, KEYLESS):
            one.push(flow)
        yield Machines(one, other, worker, address)


@pytest.fixture(scope="module")
def http(machines: Machines) -> Iterator[httpx2.Client]:
    with wire.http_for(machines.one, machines.one.key) as client:
        yield client


@pytest.fixture(scope="module")
def other(machines: Machines) -> Iterator[httpx2.Client]:
    with wire.http_for(machines.other, machines.one.key) as client:
        yield client


@contextmanager
def waiting_call(
    http: httpx2.Client, other: httpx2.Client, **headers: str
) -> Iterator[tuple[str, Future[httpx2.Response]]]:
    """A call of `endless`, and its run, which has begun."""
    headers["X-Session-Id"] = session = str(uuid4())
    own = f"/flow-runs?q=session:{session} status:running"
    with ThreadPoolExecutor(1) as pool:
        called = pool.submit(http.post, "/seq/acme/demo/endless/execute", json={}, headers=headers)
        (run,) = eventually(lambda: other.get(own).json()["runs"])
        yield run["id"], called


def test_a_server_on_a_file_of_its_own_must_execute_runs() -> None:
    with pytest.raises(SettingsError, match="executes_runs"), running_server(executes_runs=False):
        pytest.fail("it started")


@pytest.mark.usefixtures("no_key")
def test_keys_are_those_of_the_process_that_executes_the_run(http: httpx2.Client) -> None:
    answer = http.post("/seq/acme/demo/keyless/execute", json={})
    assert wire.refusal(answer) == (500, "STEP_FAILED"), "the server cannot know the keys of the worker"
    assert wire.detail(answer)["error"]["code"] == "PROVIDER_KEY_MISSING"
    trace = wire.trace_of(http, wire.detail(answer)["executionId"])
    assert (trace["flowRun"]["status"], trace["steps"]) == ("failed", [])


def places_of(address: str, text: str) -> set[str]:
    """The tables of the database in which the text stands, as text or as bytes."""
    patterns = [f"%{text}%", f"%{text.encode().hex()}%"]
    names = fetched(address, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    has_it = 'SELECT FROM "{}" AS row WHERE row::text LIKE ANY ($1)'
    return {name for (name,) in names if fetched(address, has_it.format(name), patterns)}


def test_content_that_the_log_may_not_keep_is_in_the_database_for_its_caller_alone(
    machines: Machines, http: httpx2.Client
) -> None:
    secret = f"canary {uuid4()}"
    answer = http.post("/seq/acme/demo/off/step", json={"message": secret, "runRemaining": True})
    assert answer.text.count(secret) > 8
    assert places_of(machines.address, secret) == {"owed", "run_outcome"}
    run = wire.frames(answer.text)[0].data["executionId"]
    assert secret not in http.get(f"/flow-runs/{run}/trace/stream").text
    expire(machines.worker)
    assert places_of(machines.address, secret) == set()


@pytest.mark.parametrize("kind", ["execute", "step"])
def test_a_call_that_is_sent_to_two_servers_at_once_is_one_call(
    http: httpx2.Client, other: httpx2.Client, kind: str
) -> None:
    path, headers = f"/seq/acme/demo/words/{kind}", {"Idempotency-Key": str(uuid4())}
    with ThreadPoolExecutor(4) as pool:
        sent = [
            pool.submit(client.post, path, json={"message": "a b"}, headers=headers)
            for client in (http, other) * 2
        ]
        answers = [call.result() for call in sent]
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, answers[0].text)}


@pytest.mark.parametrize("kind", ["execute", "step"])
def test_a_call_that_another_server_makes_before_a_slow_one_has_its_answer_on_both(
    machines: Machines, http: httpx2.Client, other: httpx2.Client, kind: str
) -> None:
    waiting = paused_for_tools(http)
    body = resumption(waiting, results_of(waiting))
    if kind == "step":
        del body["pausedAtStep"]
    path, headers = f"/seq/acme/demo/talk/{kind}", {"Idempotency-Key": str(uuid4())}
    with FaultyStore(machines.other.runtime.engine) as engine, ThreadPoolExecutor(1) as pool:
        resumes = engine.hold("resume")
        first = pool.submit(other.post, path, json=body, headers=headers)
        resumes.until_reached()
        second = http.post(path, json=body, headers=headers)
        resumes.let_go()
        answers = [first.result(wire.LONGEST_S), second]
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, second.text)}


def test_a_browser_that_has_signed_in_at_one_server_is_signed_in_at_each(machines: Machines) -> None:
    # A balancer passes on the host that the browser sees, whatever ports it has behind it.
    seen = {"Host": "runs.example", "Sec-Fetch-Site": "same-origin"}
    key = {"Authorization": f"Bearer {machines.one.key}"}
    answer = httpx2.post(
        f"{machines.one.base_url}/viewer/session", headers={**seen, **key}, timeout=wire.LONGEST_S
    )
    cookie, proof = answer.headers["set-cookie"].partition(";")[0], answer.headers["X-Viewer-Proof"]
    held = {**seen, "Cookie": cookie, "X-Viewer-Proof": proof}

    def me(headers: dict[str, str]) -> httpx2.Response:
        return httpx2.get(f"{machines.other.base_url}/viewer/me", headers=headers, timeout=wire.LONGEST_S)

    assert me(held).json()["role"] == "admin"
    assert me({**seen, "Cookie": cookie}).status_code == 401
    with wire.http_for(machines.one, None) as browser:
        assert browser.delete("/viewer/session", headers=held).status_code == 204
    assert me(held).status_code == 401


@pytest.mark.parametrize(("key", "code"), [(None, "INTERNAL_ERROR"), ("key", "UNAVAILABLE")])
def test_a_server_that_stops_tells_its_callers_and_their_runs_go_on(
    machines: Machines, other: httpx2.Client, key: str | None, code: str
) -> None:
    headers = {"Idempotency-Key": str(uuid4())} if key else {}
    with ThreadPoolExecutor(1) as pool, ExitStack() as stopping:
        server = stopping.enter_context(running_server(store=machines.address, executes_runs=False))
        with (
            wire.http_for(server, machines.one.key) as http,
            waiting_call(http, other, **headers) as (run, called),
        ):
            streamed = pool.submit(http.get, f"/flow-runs/{run}/trace/stream")
            wire.until_event(http, run, "step_started", nth=2)
            stopping.close()
            refused = called.result(wire.LONGEST_S)
            assert (wire.detail(refused)["code"], wire.detail(refused)["executionId"]) == (code, run)
            assert wire.frames(streamed.result(wire.LONGEST_S).text)[-1].event == "step_started"
    assert other.get(f"/flow-runs/{run}").json()["status"] == "running"
    assert other.delete(f"/flow-runs/{run}").status_code == 202
    if key:
        headers["X-Session-Id"] = refused.request.headers["X-Session-Id"]
        again = other.post("/seq/acme/demo/endless/execute", json={}, headers=headers)
        assert (again.status_code, wire.detail(again)["executionId"]) == (500, run)


def test_a_call_waits_for_its_run_while_the_database_is_away_from_its_server(
    machines: Machines, other: httpx2.Client
) -> None:
    with (
        behind_a_proxy(machines.address) as database,
        running_server(store=database.by_way_of_proxy, executes_runs=False, tail_poll_s=0.1) as server,
        wire.http_for(server, machines.one.key) as http,
        waiting_call(http, other) as (run, called),
    ):
        with database.away():
            # By then what the call waits for could not be read either.
            eventually(lambda: http.get(f"/flow-runs/{run}").status_code == 503)
        assert other.delete(f"/flow-runs/{run}").status_code == 202
        answer = called.result(wire.LONGEST_S)
        assert wire.refusal(answer) == (500, "STEP_FAILED")
        assert wire.detail(answer)["executionId"] == run
