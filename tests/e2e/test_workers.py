"""Servers and workers on one PostgreSQL, each a real process: killed, stopped and ended in order."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from runglass.health import NO_WORKER
from tests.e2e.command import Process, runglass, started
from tests.postgres_server import postgres_database

WAIT_S = 60.0
FLOW = {
    "slug": "work",
    "steps": [
        {"id": "first", "type": "code", "code": 'return {"done": 1}'},
        {"id": "long", "type": "wait", "ms": 8000},
        {"id": "last", "type": "code", "code": 'return {"done": 2}'},
    ],
}


ASK = {
    "slug": "ask",
    "steps": [{"id": "ask", "type": "llm", "model": "echo", "prompt": "word", "settings": {"max_tokens": 1}}],
}
CALL_USD = Decimal("0.01")
"""What a call of the flow `ask` costs, and may cost: one token."""
PRICES = {"echo": {"input_per_mtok": "0", "output_per_mtok": str(CALL_USD * 1_000_000)}}
CALLS_PAID = 15
GOING = ("pending", "running")


class Shop:
    """A database with flows, a server that executes nothing, and workers."""

    def __init__(self, folder: Path, address: str, lease: dict[str, str]) -> None:
        self.env = {"RUNGLASS_STORE": address, "RUNGLASS_PRICES": json.dumps(PRICES), **lease}
        self._folder = folder
        flows = folder / "flows" / "acme" / "shop"
        flows.mkdir(parents=True)
        for flow in (FLOW, ASK):
            (flows / f"{flow['slug']}.json").write_text(json.dumps(flow))
        self._open = ExitStack()
        self._workers = ExitStack()

    def __enter__(self) -> "Shop":
        server = self._open.enter_context(
            started("serve", "--port", "0", "--no-worker", "--flows", "flows", env=self.env, cwd=self._folder)
        )
        self.url = server.line().removeprefix("ready ")
        key = self.run("keys", "create", "acme/shop").strip()
        self.http = self._open.enter_context(
            httpx2.Client(
                base_url=f"{self.url}/api/v1", headers={"Authorization": f"Bearer {key}"}, timeout=WAIT_S
            )
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill_workers()
        self._open.close()

    def kill_workers(self) -> None:
        self._workers.close()

    def run(self, *arguments: str) -> str:
        """What the command prints."""
        done = runglass(*arguments, env=self.env, cwd=self._folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def worker(self) -> Process:
        """A worker that claims runs by now."""
        worker = self._workers.enter_context(
            started("worker", "--concurrency", "10", env=self.env, cwd=self._folder)
        )
        assert worker.line().startswith("ready worker on postgresql:///runglass_")
        return worker

    def start(self, count: int, slug: str = "work") -> list[str]:
        answers = [self.http.post(f"/seq/acme/shop/{slug}/jobs", json={}) for _ in range(count)]
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
        """Returns when each run is in its long step, or has just been there."""
        until(lambda: all(len(self.trace(run_id)["steps"]) >= 2 for run_id in run_ids), "the long steps")

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


@pytest.fixture(scope="module")
def shop_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    with postgres_database() as address, Shop(folder, address, {"RUNGLASS_LEASE_S": "5"}) as opened:
        yield opened


@pytest.fixture
def shop(shop_of_all: Shop) -> Iterator[Shop]:
    yield shop_of_all
    shop_of_all.kill_workers()


@pytest.fixture
def shop_as_it_comes(tmp_path: Path) -> Iterator[Shop]:
    with postgres_database() as address, Shop(tmp_path, address, {}) as opened:
        yield opened


def test_the_runs_of_a_worker_that_is_killed_go_on_elsewhere(shop_as_it_comes: Shop) -> None:
    shop = shop_as_it_comes

    def told() -> Any:
        return httpx2.get(f"{shop.url}/health", timeout=WAIT_S).json()

    health = told()
    assert (health["status"], health["executesRuns"]) == ("degraded", False)
    assert health["reasons"] == [NO_WORKER]
    assert httpx2.get(f"{shop.url}/ready", timeout=WAIT_S).status_code == 200
    first = shop.worker()
    until(lambda: bool(told()["status"] == "ok"), "the worker to be seen")
    run_ids = shop.start(3)
    shop.until_long(run_ids)
    first.kill()
    heads = {run_id: len(shop.log(run_id)) for run_id in run_ids}
    shop.worker()
    until(lambda: all(len(shop.log(run_id)) > heads[run_id] for run_id in run_ids), "the takeover")
    until(lambda: all(map(shop.completed, run_ids)), "the end")
    for run_id in run_ids:
        assert completions(shop.log(run_id)) == ["first", "long", "last"]


def test_a_worker_that_stood_still_writes_nothing_to_runs_that_others_have(shop: Shop) -> None:
    stopped = shop.worker()
    run_ids = shop.start(3)
    shop.until_long(run_ids)
    os.kill(stopped.pid, signal.SIGSTOP)
    found = json.loads(shop.run("processes", "--json"))
    [runs] = [each["runs"] for each in found if each["pid"] == stopped.pid]
    assert runs == 3
    assert f":{stopped.pid} " in shop.run("processes")
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


def test_workers_that_ask_for_one_budget_at_once_spend_no_more_and_no_less(shop: Shop) -> None:
    shop.run("projects", "budget", "acme/shop", str(CALLS_PAID * CALL_USD))
    # All of them wait before the first one is asked for.
    run_ids = shop.start(3 * CALLS_PAID, "ask")
    for _ in range(2):
        shop.worker()
    until(lambda: all(shop.trace(run_id)["flowRun"]["status"] not in GOING for run_id in run_ids), "the end")
    ended = [shop.trace(run_id)["flowRun"] for run_id in run_ids]
    codes = Counter((run.get("error") or {}).get("code") for run in ended)
    assert codes == {None: CALLS_PAID, "CREDITS_EXHAUSTED": 2 * CALLS_PAID}
    budget = json.loads(shop.run("projects", "budget", "acme/shop", "--json"))
    shop.run("projects", "budget", "acme/shop", "none")
    assert Decimal(budget["spentUsd"]) == CALLS_PAID * CALL_USD


def test_a_worker_on_a_file_is_told_what_to_do(tmp_path: Path) -> None:
    done = runglass("worker", cwd=tmp_path)
    assert done.returncode == 2
    assert "`runglass serve` executes the runs of its file itself" in done.stderr
    assert list(tmp_path.iterdir()) == []
