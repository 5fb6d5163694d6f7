"""Servers and workers on one PostgreSQL, each a real process: killed, stopped and ended in order.

At the end a server on a file, which is killed or stopped while a check never ends.
"""

import asyncio
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from runglass.runtime.health import NO_WORKER
from tests.contract.wire import frames, http_at
from tests.e2e.command import Process, fill, runglass, served, started
from tests.flows import doubling
from tests.http_server import Reply, answering
from tests.postgres_server import postgres_database, postgres_server
from tests.unit.engine.fake_provider import COMPATIBLE
from tests.waiting import eventually

WAIT_S = 60.0


def flow(slug: str, long: dict[str, Any]) -> dict[str, Any]:
    first, last = ({"id": name, "type": "code", "code": "return {'done': 1}"} for name in ("first", "last"))
    return {"slug": slug, "steps": [first, {"id": "long", **long}, last]}


WORK = flow("work", {"type": "llm", "model": "held:small", "prompt": "hi"})
REST = flow("rest", {"type": "wait", "ms": 2000})
ASK = {
    "slug": "ask",
    "steps": [{"id": "ask", "type": "llm", "model": "echo", "prompt": "word", "settings": {"max_tokens": 1}}],
}
CALL_USD = Decimal("0.01")
"""What a call of the flow `ask` costs, and may cost: one token."""
PRICES = {"echo": {"input_per_mtok": "0", "output_per_mtok": str(CALL_USD * 1_000_000)}}
CALLS_PAID = 15
CARRIED = "wake-ups are carried by"
WATCHED = " has /metrics, /health and /ready"
CHECKED = {"id": "answer", "type": "llm", "model": "echo", "prompt": "hi", "output_schema": doubling(40)}
"""A step whose check never ends."""


class Held:
    """An OpenAI-compatible server that holds its answers back until `let_go` is set."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.asked = threading.Semaphore(0)

    def __call__(self, _: object) -> Reply:
        self.asked.release()
        self.let_go.wait()
        return Reply(200, {"content-type": "text/event-stream"}, COMPATIBLE.reply("done").body)

    def reached(self, count: int) -> None:
        """Returns when there have been so many requests, so many further ones each time."""
        assert all(self.asked.acquire(timeout=WAIT_S) for _ in range(count))


class Shop:
    """A database with flows, a server that executes nothing, workers, and `held`, their provider.

    No lease runs out by itself, however busy the machine is.
    """

    def __init__(self, folder: Path, address: str, opened: ExitStack) -> None:
        self._workers = ExitStack()
        self._folder = folder
        self._database = urlsplit(address).path[1:]
        self.held = Held()
        provider = opened.enter_context(answering(self.held))
        self._env = {
            "RUNGLASS_STORE": address,
            "RUNGLASS_PRICES": json.dumps(PRICES),
            "RUNGLASS_PROVIDERS": json.dumps({"held": f"{provider}/v1"}),
            "RUNGLASS_LEASE_S": "30",
        }
        flows = folder / "flows" / "acme" / "shop"
        flows.mkdir(parents=True)
        for each in (WORK, REST, ASK):
            (flows / f"{each['slug']}.json").write_text(json.dumps(each))
        serve = ("serve", "--port", "0", "--no-worker", "--flows", "flows")
        server = opened.enter_context(started(*serve, env=self._env, cwd=folder))
        self.url = server.line().removeprefix("ready ")
        key = self.run("keys", "create", "--create", "acme/shop").strip()
        self.http = opened.enter_context(http_at(self.url, key))

    def kill_workers(self) -> None:
        self._workers.close()
        self.end_leases()

    def run(self, *arguments: str) -> str:
        """What the command prints."""
        done = runglass(*arguments, env=self._env, cwd=self._folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def worker(self, *options: str) -> Process:
        """A worker that claims runs by now."""
        worker = self._workers.enter_context(
            started("worker", "--concurrency", "10", *options, env=self._env, cwd=self._folder)
        )
        assert worker.line().startswith("ready worker on postgresql:///runglass_")
        return worker

    def start(self, count: int, slug: str = "work") -> list[str]:
        answers = [self.http.post(f"/seq/acme/shop/{slug}/jobs", json={}) for _ in range(count)]
        return [str(answer.json()["executionId"]) for answer in answers]

    def end_leases(self) -> None:
        """The leases of the workers, which are killed or stand still, run out."""
        sql = "UPDATE lease SET expires_at = now() - interval '1 hour' WHERE executes_runs"
        asyncio.run(postgres_server().execute(sql, database=self._database))


def followed(
    http: httpx2.Client, run_id: str, *, until: tuple[str, int] | None = None
) -> list[dict[str, Any]]:
    """The events of the run up to its end, or to the start of this attempt of a step.

    That their numbers have no hole and no repeat is asserted.
    """
    events = []
    with http.stream("GET", f"/flow-runs/{run_id}/trace/stream") as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                events.append(event := json.loads(line.removeprefix("data: ")))
                if event["eventType"] == "step_started" and (event["stepId"], event["attempt"]) == until:
                    break
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    return events


def completions(log: list[dict[str, Any]]) -> list[str]:
    return [event["stepId"] for event in log if event["eventType"] == "step_completed"]


@pytest.fixture(scope="module")
def shop_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with postgres_database() as address, ExitStack() as opened:
        yield Shop(tmp_path_factory.mktemp("shop"), address, opened)


@pytest.fixture
def shop(shop_of_all: Shop) -> Iterator[Shop]:
    shop_of_all.held.let_go.clear()
    # The test before this one need not have waited for each of its requests.
    while shop_of_all.held.asked.acquire(blocking=False):
        pass
    yield shop_of_all
    shop_of_all.held.let_go.set()
    shop_of_all.kill_workers()


def test_the_runs_of_a_worker_that_is_killed_go_on_elsewhere(shop: Shop) -> None:
    def told(path: str) -> Any:
        return httpx2.get(f"{shop.url}{path}", timeout=WAIT_S).json()

    eventually(lambda: told("/health").get("reasons") == [NO_WORKER])
    assert (told("/health")["status"], told("/health")["executesRuns"]) == ("degraded", False)
    eventually(lambda: told("/ready")["status"] == "ready")
    first = shop.worker()
    eventually(lambda: told("/health")["status"] == "ok")
    run_ids = shop.start(3)
    shop.held.reached(3)
    first.kill()
    shop.end_leases()
    shop.worker()
    shop.held.reached(3)
    shop.held.let_go.set()
    for run_id in run_ids:
        assert completions(followed(shop.http, run_id)) == ["first", "long", "last"]


def test_a_worker_that_stood_still_writes_nothing_to_runs_that_others_have(shop: Shop) -> None:
    stopped = shop.worker()
    run_ids = shop.start(3)
    shop.held.reached(3)
    os.kill(stopped.pid, signal.SIGSTOP)
    found = json.loads(shop.run("processes", "--json"))
    [runs] = [each["runs"] for each in found if each["pid"] == stopped.pid]
    assert runs == 3
    assert f":{stopped.pid} " in shop.run("processes")
    shop.end_leases()
    other = shop.worker()
    shop.held.reached(3)
    shop.held.let_go.set()
    ended = {run_id: followed(shop.http, run_id) for run_id in run_ids}
    os.kill(stopped.pid, signal.SIGCONT)
    stopped.line_of_stderr_with("the lease expired")
    assert other.terminate() == 0
    [again] = shop.start(1)
    assert completions(followed(shop.http, again)) == ["first", "long", "last"], (
        "in the worker that stood still"
    )
    assert {run_id: followed(shop.http, run_id) for run_id in run_ids} == ended
    for log in ended.values():
        assert completions(log) == ["first", "long", "last"]


def test_a_worker_that_is_asked_to_stop_leaves_its_runs_to_another_and_repeats_nothing(shop: Shop) -> None:
    first, _ = shop.worker(), shop.worker()
    run_ids = shop.start(16, "rest")
    for run_id in run_ids[:10]:
        followed(shop.http, run_id, until=("long", 1))
    assert first.terminate() == 0
    run_ids += shop.start(4, "rest")
    for run_id in run_ids:
        log = followed(shop.http, run_id)
        assert completions(log) == ["first", "long", "last"]
        # The wait alone is left and goes on elsewhere, with the deadline that it had.
        lost = {event["stepId"] for event in log if event["eventType"] in ("step_retrying", "step_failed")}
        assert lost <= {"long"}


def test_calls_are_answered_by_the_worker_that_takes_over_from_a_killed_one(shop: Shop) -> None:
    killed = shop.worker()
    [cancelled] = shop.start(1)
    flow = "/seq/acme/shop/work"
    with ThreadPoolExecutor(3) as pool:
        streamed = pool.submit(shop.http.post, f"{flow}/step", json={"runRemaining": True})
        executed = pool.submit(shop.http.post, f"{flow}/execute", json={})
        shop.held.reached(3)
        killed.kill()
        shop.end_leases()
        ended = pool.submit(shop.http.delete, f"/flow-runs/{cancelled}")
        shop.worker()
        assert ended.result(WAIT_S).json() == {"executionId": cancelled, "status": "cancelled"}
        shop.held.let_go.set()
        answer = executed.result(WAIT_S)
        told = frames(streamed.result(WAIT_S).text)
    assert (answer.status_code, answer.json()["result"]) == (200, {"done": 1})
    events = [frame for frame in told if frame.id]
    assert [frame.id for frame in events] == [str(seq) for seq in range(1, len(events) + 1)]
    assert [frame.data["error"]["code"] for frame in told if frame.event == "step_retrying"] == [
        "WORKER_LOST"
    ]
    outputs = [frame.data["output"] for frame in told if frame.event == "step_completed"]
    assert outputs == [{"done": 1}, {"text": "done"}, {"done": 1}]
    assert "last" not in {event.get("stepId") for event in followed(shop.http, cancelled)}


def test_workers_that_ask_for_one_budget_at_once_spend_no_more_and_no_less(shop: Shop) -> None:
    shop.run("projects", "budget", "acme/shop", str(CALLS_PAID * CALL_USD))
    # All of them wait before the first one is asked for.
    run_ids = shop.start(3 * CALLS_PAID, "ask")
    for _ in range(2):
        shop.worker()
    ends = [followed(shop.http, run_id)[-1] for run_id in run_ids]
    codes = Counter((end.get("error") or {}).get("code") for end in ends)
    assert codes == {None: CALLS_PAID, "CREDITS_EXHAUSTED": 2 * CALLS_PAID}
    budget = json.loads(shop.run("projects", "budget", "acme/shop", "--json"))
    shop.run("projects", "budget", "acme/shop", "none")
    assert Decimal(budget["spentUsd"]) == CALLS_PAID * CALL_USD


def test_a_worker_is_ready_counts_what_it_does_and_logs_as_json(shop: Shop) -> None:
    def ask(path: str) -> tuple[int, dict[str, Any]]:
        answer = httpx2.get(f"{address}{path}", timeout=WAIT_S)
        return answer.status_code, answer.json()

    worker = shop.worker("--port", "0", "--log-format", "json", "--log-level", "info")
    lines: list[str] = []
    while not all(any(part in line for line in lines) for part in (CARRIED, WATCHED)):
        lines.append(worker.line_of_stderr_with())
    said = {entry["message"]: entry for entry in map(json.loads, lines)}
    (carried,) = [entry for message, entry in said.items() if CARRIED in message]
    assert (carried["level"], carried["logger"]) == ("info", "runglass.bus.process_bus")
    (address,) = [message.removesuffix(WATCHED) for message in said if WATCHED in message]
    shop.start(1)
    shop.held.reached(1)
    eventually(lambda: ask("/ready") == (200, {"status": "ready"}))
    eventually(lambda: ask("/health")[0] == 200)
    assert ask("/health")[1]["executesRuns"] is True
    told = httpx2.get(f"{address}/metrics", timeout=WAIT_S).text.splitlines()
    for line in (
        "runglass_executes_runs 1.0",
        "runglass_active_runs 1.0",
        "runglass_claimed_runs_total 1.0",
        "runglass_leases 2.0",
        "runglass_bus_connected 1.0",
        "runglass_store_pool_most 10.0",
        'runglass_runs{project="acme/shop",status="running"} 1.0',
    ):
        assert line in told
    shop.held.let_go.set()
    assert worker.terminate() == 0


def test_a_worker_on_a_file_is_told_what_to_do(tmp_path: Path) -> None:
    done = runglass("worker", cwd=tmp_path)
    assert done.returncode == 2
    assert "`runglass serve` executes the runs of its file itself" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_outlives_no_process_is_ended_by_a_start(tmp_path: Path) -> None:
    key, run = fill(tmp_path, {"slug": "f", "steps": [CHECKED]}), ""
    env = {"RUNGLASS_CHECK_TIME_LIMIT_MS": "600000", "RUNGLASS_CRASH_RETRIES": "1"}
    for attempt in (1, 2):
        with served(tmp_path, key, env=env) as (server, http):
            run = run or http.post("/seq/acme/shop/f/jobs", json={}).json()["executionId"]
            followed(http, run, until=("answer", attempt))
            # The check goes on in its process, and everybody else is served.
            assert http.get(f"/flow-runs/{run}/trace").json()["flowRun"]["status"] == "running"
            server.kill()
    with served(tmp_path, key, env=env) as (_, http):
        codes = [event["error"]["code"] for event in followed(http, run) if "error" in event]
        assert codes == ["WORKER_LOST"] * 3, "two attempts, and the run"


def test_a_check_that_never_ends_keeps_no_server_from_stopping(tmp_path: Path) -> None:
    """The very request that froze a server, which then did not hear SIGTERM any more."""
    key = fill(tmp_path, {"slug": "f", "steps": [{**CHECKED, "output_schema": {"type": "object"}}]})
    env = {"RUNGLASS_CHECK_TIME_LIMIT_MS": "600000", "RUNGLASS_STOP_GRACE_S": "0"}
    with served(tmp_path, key, env=env) as (server, http):
        overrides = {"answer": {"output_schema": doubling(40)}}
        job = http.post("/seq/acme/shop/f/jobs", json={"blockOverrides": overrides})
        assert job.status_code == 202
        followed(http, job.json()["executionId"], until=("answer", 1))
        # The check goes on for longer than this waits.
        assert server.terminate() == 0
