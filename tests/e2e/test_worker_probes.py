"""A worker tells those who watch it how it is."""

import json
from pathlib import Path
from typing import Any

import httpx2

from tests.e2e.command import started
from tests.e2e.test_workers import Shop
from tests.postgres_server import postgres_database
from tests.waiting import eventually

CARRIED = "wake-ups are carried by"
WATCHED = " has /metrics, /health and /ready"


def test_a_worker_is_ready_counts_what_it_does_and_logs_as_json(tmp_path: Path) -> None:
    with postgres_database() as address, Shop(tmp_path, address) as shop:
        flags = ("--port", "0", "--log-format", "json", "--log-level", "info")
        with started("worker", *flags, env=shop.env, cwd=tmp_path) as worker:
            assert worker.line().startswith("ready worker on ")
            lines: list[str] = []
            while not all(any(part in line for line in lines) for part in (CARRIED, WATCHED)):
                lines.append(worker.line_of_stderr_with())
            said = {entry["message"]: entry for entry in map(json.loads, lines)}
            (carried,) = [entry for message, entry in said.items() if CARRIED in message]
            assert (carried["level"], carried["logger"]) == ("info", "runglass.bus.process_bus")
            (address,) = [message.removesuffix(WATCHED) for message in said if WATCHED in message]
            shop.start(1)
            shop.held.reached(1)
            eventually(lambda: ask(address, "/ready") == (200, {"status": "ready"}))
            eventually(lambda: ask(address, "/health")[0] == 200)
            assert ask(address, "/health")[1]["executesRuns"] is True
            told = httpx2.get(f"{address}/metrics", timeout=60).text.splitlines()
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


def ask(address: str, path: str) -> tuple[int, dict[str, Any]]:
    answer = httpx2.get(f"{address}{path}", timeout=60)
    return answer.status_code, answer.json()
