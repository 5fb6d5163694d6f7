"""A disk that fails under a real server, which answers, lives and recovers; `/health` says what is wrong."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from unittest.mock import Mock

import httpx2
import pytest

from runglass import __version__ as runglass_version
from runglass.engine.maintenance.maintenance import Maintenance
from runglass.errors import StoreError
from runglass.store.sqlite.store import SqliteStore
from runglass.testing import RunningServer, running_server
from tests.contract.wire import ANYTHING, detail, execute, log_of, refusal, start, until_health
from tests.e2e.command import failing_disk, runglass, served
from tests.faulty_store import FaultyStore
from tests.servers import server_with
from tests.waiting import eventually

LARGE = {"parameters": {"text": "x" * 1_000_000}}
"""More than the pages that are free in a database of these tests."""

LASTING = """
slug: lasting
steps:
  - {id: hold, type: wait, ms: 1}
  - {id: fill, type: code, code: 'return {"text": "x" * 1000000}'}
"""
WALK = """
slug: walk
steps: [{id: each, type: loop, over: list(range(20000)), steps: [{id: rest, type: wait, ms: 1}]}]
"""
"""Appends all the time, for a minute or more."""
Fault = Callable[[RunningServer], AbstractContextManager[None]]


def pragma(server: RunningServer, text: str) -> int:
    """Asks or tells the connection that writes; the value of the pragma."""

    async def ask() -> int:
        store = server.runtime.store
        assert isinstance(store, SqliteStore)
        (value,) = await store.connections.write(lambda db: db.execute(f"PRAGMA {text}").fetchone())
        return int(value)

    return server.call(ask())


@contextmanager
def full(server: RunningServer) -> Iterator[None]:
    """The disk has no page left."""
    before = pragma(server, "max_page_count")
    pragma(server, f"max_page_count = {pragma(server, 'page_count')}")
    try:
        yield
    finally:
        pragma(server, f"max_page_count = {before}")


@contextmanager
def locked(server: RunningServer) -> Iterator[None]:
    """Another process writes, and for longer than anybody waits."""
    assert pragma(server, "busy_timeout = 200") == 200
    with closing(sqlite3.connect(server.runtime.settings.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


FAULTS: list[Fault] = [full, locked]


# What could not be recorded is tried again when the lease is renewed.
server = server_with(ANYTHING, LASTING, lease_s=10.0)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_that_cannot_be_stored_is_503_and_not_started(
    server: RunningServer, http: httpx2.Client, fault: Fault
) -> None:
    execute(http, "anything")
    before = http.get("/flow-runs").json()
    headers = {"Idempotency-Key": f"again-{fault.__name__}"}
    with fault(server):
        for path in ("execute", "jobs", "v1/step"):
            answer = http.post(f"/seq/acme/demo/anything/{path}", json=LARGE, headers=headers)
            assert refusal(answer) == (503, "UNAVAILABLE"), path
            assert ("`runglass runs delete`" in detail(answer)["message"]) == (fault is full)
        assert http.get("/flow-runs").json() == before
    answer = http.post("/seq/acme/demo/anything/execute", json=LARGE, headers=headers)
    assert answer.status_code == 200
    assert answer.json()["result"] == LARGE["parameters"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_in_the_middle_ends_once_the_disk_is_back(
    server: RunningServer, http: httpx2.Client, faults: FaultyStore, fault: Fault
) -> None:
    appends, held = faults.calls("append"), faults.hold("append")
    run = start(server, "lasting")
    with fault(server):
        held.let_go()
        eventually(lambda: [call for call in appends if isinstance(call.error, StoreError)])
        # The server goes on answering meanwhile.
        assert http.get(f"/flow-runs/{run}/trace").json()["flowRun"]["status"] in ("pending", "running")
    last = log_of(http, run)[-1]
    trace = http.get(f"/flow-runs/{run}/trace").json()
    status = trace["flowRun"]["status"]
    assert (last.event, status) in (("flow_completed", "completed"), ("flow_failed", "failed"))
    assert "running" not in [step["status"] for step in trace["steps"]]
    assert status == "completed" or last.data["error"]["code"]
    execute(http, "anything")


def test_a_server_whose_disk_fails_lives_and_recovers(tmp_path: Path) -> None:
    key = runglass("keys", "create", "--create", "acme/demo", "--data", tmp_path).stdout.strip()
    with served(tmp_path, key) as (process, http):
        url = str(http.base_url).removesuffix("/api/v1/")
        for slug, text in (("anything", ANYTHING), ("walk", WALK)):
            assert http.put(f"/flows/acme/demo/{slug}", content=text.encode()).status_code == 200
        done = execute(http, "anything")
        until_health(url, "ok")
        job = http.post("/seq/acme/demo/walk/jobs", json={}).json()["executionId"]
        with failing_disk(process.pid):
            sick = until_health(url, "unavailable")
            assert sick["reasons"] == ["the store takes no writes: disk I/O error"]
            assert sick["detail"]["code"] == "UNAVAILABLE"
            assert refusal(http.post("/seq/acme/demo/anything/execute", json={})) == (503, "UNAVAILABLE")
            assert http.get(f"/flow-runs/{done}/trace").json()["flowRun"]["status"] == "completed"
            process.line_of_stderr_with(job)
        eventually(lambda: http.delete(f"/flow-runs/{job}").status_code in (202, 409))
        assert log_of(http, job)[-1].event in ("flow_cancelled", "flow_failed")
        execute(http, "anything")
        well = {"status": "ok", "version": runglass_version, "executesRuns": True}
        assert until_health(url, "ok") == well
        assert process.interrupt() == 0


def test_a_lease_keeper_that_fails_is_503_until_it_is_well_again(caplog: pytest.LogCaptureFixture) -> None:
    with running_server(lease_s=0.3) as server:
        with FaultyStore(server.runtime.engine.claims) as claims:
            claims.fail("hold_lease", ZeroDivisionError("a fault of the server"))
            reasons = until_health(server.address, "unavailable")["reasons"]
            assert reasons == ["the lease keeper has failed and is restarted"]
        until_health(server.address, "ok")
    assert [record.exc_info is not None for record in caplog.records if "lease keeper" in record.message]


def test_failing_housekeeping_degrades_health_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Maintenance, "tidy", Mock(side_effect=ZeroDivisionError("a fault of the server")))
    with running_server() as server:
        reasons = until_health(server.address, "degraded")["reasons"]
    assert reasons == ["housekeeping has failed and is restarted"]
