"""Servers and workers on one PostgreSQL, each a real process: killed, stopped and ended in order."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.command import Process, runglass, started
from tests.postgres_server import postgres_database

TAKEOVER_S = 15.0
WAIT_S = 60.0
FLOW = {
    "slug": "work",
    "steps": [
        {"id": "first", "type": "code", "code": 'return {"done": 1}'},
        {"id": "long", "type": "wait", "ms": 2500},
        {"id": "last", "type": "code", "code": 'return {"done": 2}'},
    ],
}


class Shop:
    """A database with a flow, a server that executes nothing, and workers."""

    def __init__(self, folder: Path, address: str, lease: dict[str, str]) -> None:
        self.env = {"RUNGLASS_STORE": address, **lease}
        self._folder = folder
        flow = folder / "flows" / "acme" / "shop" / "work.json"
        flow.parent.mkdir(parents=True)
        flow.write_text(json.dumps(FLOW))
        self._open = ExitStack()

    def __enter__(self) -> "Shop":
        server = self._open.enter_context(
            started("serve", "--port", "0", "--no-worker", "--flows", "flows", env=self.env, cwd=self._folder)
        )
        self.url = server.line().removeprefix("ready ")
        key = runglass("keys", "create", "acme/shop", env=self.env, cwd=self._folder).stdout.strip()
        self.http = self._open.enter_context(
            httpx2.Client(
                base_url=f"{self.url}/api/v1", headers={"Authorization": f"Bearer {key}"}, timeout=WAIT_S
            )
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def worker(self) -> Process:
        """A worker that claims runs by now."""
        worker = self._open.enter_context(
            started("worker", "--concurrency", "10", env=self.env, cwd=self._folder)
        )
        assert worker.line().startswith("ready worker on postgresql:///runglass_")
        return worker

    def start(self, count: int) -> list[str]:
        answers = [self.http.post("/seq/acme/shop/work/jobs", json={}) for _ in range(count)]
        return [str(answer.json()["executionId"]) for answer in answers]

    def trace(self, run_id: str) -> dict[str, Any]:
        trace: dict[str, Any] = self.http.get(f"/flow-runs/{run_id}/trace").json()
        return trace

    def log(self, run_id: str) -> list[dict[str, Any]]:
        """The events of the run; that their numbers have no hole and no repeat is asserted."""
        lines = self.http.get(f"/flow-runs/{run_id}/export", params={"format": "jsonl"}).text.splitlines()
        events = [json.loads(line) for line in lines[1:]]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        return events

    def until_long(self, run_ids: list[str]) -> None:
        """Returns when each run is in its long step."""
        until(lambda: all(len(self.trace(run_id)["steps"]) == 2 for run_id in run_ids), "the long steps")

    def completed(self, run_id: str) -> bool:
        status = self.trace(run_id)["flowRun"]["status"]
        assert status in ("pending", "running", "completed")
        return bool(status == "completed")


def until(found: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WAIT_S
    while not found():
        assert time.monotonic() < end, f"{what} did not come about in {WAIT_S:g} s"
        time.sleep(0.05)


def completions(log: list[dict[str, Any]]) -> list[str]:
    return [event["stepId"] for event in log if event["eventType"] == "step_completed"]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with postgres_database() as address, Shop(tmp_path, address, {"RUNGLASS_LEASE_S": "1.5"}) as opened:
        yield opened


@pytest.fixture
def shop_as_it_comes(tmp_path: Path) -> Iterator[Shop]:
    with postgres_database() as address, Shop(tmp_path, address, {}) as opened:
        yield opened


def test_the_runs_of_a_worker_that_is_killed_go_on_elsewhere_in_fifteen_seconds(
    shop_as_it_comes: Shop,
) -> None:
    shop = shop_as_it_comes
    health = httpx2.get(f"{shop.url}/health").json()
    assert (health["status"], health["executesRuns"]) == ("ok", False)
    first = shop.worker()
    run_ids = shop.start(3)
    shop.until_long(run_ids)
    shop.worker()
    killed_s = time.monotonic()
    first.kill()
    heads = {run_id: len(shop.log(run_id)) for run_id in run_ids}
    until(lambda: all(len(shop.log(run_id)) > heads[run_id] for run_id in run_ids), "the takeover")
    assert time.monotonic() - killed_s < TAKEOVER_S
    until(lambda: all(map(shop.completed, run_ids)), "the end")
    for run_id in run_ids:
        assert completions(shop.log(run_id)) == ["first", "long", "last"]


def test_a_worker_that_stood_still_writes_nothing_to_runs_that_others_have(shop: Shop) -> None:
    stopped = shop.worker()
    run_ids = shop.start(3)
    shop.until_long(run_ids)
    os.kill(stopped.pid, signal.SIGSTOP)
    other = shop.worker()
    until(lambda: all(map(shop.completed, run_ids)), "the end")
    ended = {run_id: shop.log(run_id) for run_id in run_ids}
    os.kill(stopped.pid, signal.SIGCONT)
    stopped.line_of_stderr_with("the lease ran out")
    assert other.terminate() == 0
    [again] = shop.start(1)
    until(lambda: shop.completed(again), "a run in the worker that stood still")
    assert {run_id: shop.log(run_id) for run_id in run_ids} == ended
    for log in ended.values():
        assert completions(log) == ["first", "long", "last"]


def test_a_worker_that_is_asked_to_stop_leaves_its_runs_to_another_and_repeats_nothing(shop: Shop) -> None:
    first, _ = shop.worker(), shop.worker()
    run_ids = shop.start(16)
    shop.until_long(run_ids[:10])
    assert first.terminate() == 0
    run_ids += shop.start(4)
    until(lambda: all(map(shop.completed, run_ids)), "the end")
    for run_id in run_ids:
        log = shop.log(run_id)
        assert completions(log) == ["first", "long", "last"]
        # The wait alone is left and goes on elsewhere, with the deadline that it had.
        lost = {event["stepId"] for event in log if event["eventType"] in ("step_retrying", "step_failed")}
        assert lost <= {"long"}


def test_a_worker_on_a_file_is_told_what_to_do(tmp_path: Path) -> None:
    done = runglass("worker", cwd=tmp_path)
    assert done.returncode == 2
    assert "`runglass serve` executes the runs of its file itself" in done.stderr
    assert list(tmp_path.iterdir()) == []
