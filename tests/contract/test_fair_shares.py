"""Two projects on one server: what one of them does, by its number or its time, costs the other little."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any

import httpx2
import pytest

from runglass.limits.pace import LARGE_READ_BYTES, current_project
from runglass.store.sqlite.store import SqliteStore
from runglass.testing import RunningServer, running_server
from tests.contract.wire import detail, http_for, requests_in
from tests.waiting import eventually

RUNAWAY = "slug: runaway\nsteps: [{id: run, type: code, code: 'while True: pass'}]\n"
CODE = "slug: code\nsteps: [{id: sum, type: code, code: 'return {\"n\": 1 + 1}'}]\n"
KEEP = "slug: keep\ncapture: full\nsteps: [{id: keep, type: passthrough}]\n"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    limits = {"max_concurrent_runs": 3, "max_queued_runs": 20, "code_time_limit_ms": 600_000}
    with running_server(**limits, log_level="error") as running:
        running.push(RUNAWAY)
        running.push(CODE, org="guests", project="one")
        yield running


@pytest.fixture(scope="module")
def flood(server: RunningServer) -> Iterator[httpx2.Client]:
    with http_for(server, server.key) as client:
        yield client


@pytest.fixture(scope="module")
def guest(server: RunningServer) -> Iterator[httpx2.Client]:
    with http_for(server, server.make_key("guests", "one")) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("runs", "/flow-runs?q=text:never"),
        ("count_runs", "/flow-runs/histogram?q=text:never"),
        ("events", "/flow-runs/{run_id}/export?format=jsonl"),
        ("events", "/flow-runs/{run_id}/trace/stream"),
        ("trace", "/flow-runs/{run_id}/trace"),
        ("attempt_page", "/flow-runs/{run_id}/trace/outline"),
        ("attempt_page", "/flow-runs/{run_id}/trace/timeline"),
        ("attempt_data", "/flow-runs/{run_id}/steps/keep/trace"),
        ("attempt_data", "/flow-runs/{run_id}/steps/keep/payload"),
    ],
)
def test_of_each_project_one_search_or_page_is_read_at_a_time(
    server: RunningServer,
    flood: httpx2.Client,
    guest: httpx2.Client,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
) -> None:
    """All reads share a few threads, in the order in which they are asked for. Runs of their own, as readers
    of the same outline or replay share it."""
    server.push(KEEP)
    server.push(KEEP, org="guests", project="one")
    ids = {flood: [_kept(flood, "acme/demo") for _ in range(2)], guest: [_kept(guest, "guests/one")]}
    read = getattr(SqliteStore, method)
    going: list[int] = []
    most = {"one": 0, "both": 0}
    all_are_there = threading.Event()

    @wraps(read)
    async def slowly(store: SqliteStore, *args: Any, **kwargs: Any) -> Any:
        if "most_log_bytes" in kwargs:
            return await read(store, *args, **kwargs)
        project_id = current_project.get()
        going.append(project_id)
        most["one"] = max(most["one"], going.count(project_id))
        most["both"] = max(most["both"], len(going))
        await asyncio.to_thread(all_are_there.wait)
        found = await read(store, *args, **kwargs)
        going.remove(project_id)
        return found

    monkeypatch.setattr(SqliteStore, method, slowly)
    with ThreadPoolExecutor(8) as callers:
        asked = [
            callers.submit(client.get, path.format(run_id=run_id))
            for client in (flood, guest)
            for run_id in ids[client]
        ]
        eventually(lambda: len(set(going)) == 2 and requests_in(server) == 3)
        all_are_there.set()
        assert {call.result().status_code for call in asked} == {200}
    assert most == {"one": 1, "both": 2}


def _kept(client: httpx2.Client, project: str) -> str:
    """A run whose trace and log are long."""
    body = {"message": "x" * LARGE_READ_BYTES}
    return str(client.post(f"/seq/{project}/keep/execute", json=body).json()["executionId"])


def test_endless_code_and_a_full_queue_of_one_project_do_not_stop_another(
    flood: httpx2.Client, guest: httpx2.Client
) -> None:
    jobs = [flood.post("/seq/acme/demo/runaway/jobs", json={}) for _ in range(24)]
    assert [job.status_code for job in jobs] == [202] * 23 + [503]
    assert detail(jobs[-1])["limit"] == "max_queued_runs"
    assert detail(jobs[-1])["value"] == 20
    assert int(jobs[-1].headers["retry-after"]) >= 1
    for _ in range(3):
        answer = guest.post("/seq/guests/one/code/execute", json={})
        assert (answer.status_code, answer.json()["result"]) == (200, {"n": 2})
    still = [flood.get(f"/seq/acme/demo/runaway/jobs/{job.json()['executionId']}") for job in jobs[:23]]
    assert {job.json()["status"] for job in still} == {"pending", "running"}
