"""A worker tells those who watch it how it is."""

import json
from pathlib import Path
from typing import Any

import httpx2

from tests.e2e.command import started
from tests.e2e.test_workers import Shop
from tests.postgres_server import postgres_database
from tests.prove.killing.server import free_port


def test_a_worker_is_ready_counts_what_it_does_and_logs_as_json(tmp_path: Path) -> None:
    port = free_port()
    with postgres_database() as address, Shop(tmp_path, address, {}) as shop:
        flags = ("--port", str(port), "--log-format", "json", "--log-level", "info")
        with started("worker", *flags, env=shop.env, cwd=tmp_path) as worker:
            assert worker.line().startswith("ready worker on ")
            (run_id,) = shop.start(1)
            shop.until_long([run_id])
            assert ask(port, "/ready") == (200, {"status": "ready"})
            status, health = ask(port, "/health")
            assert (status, health["executesRuns"]) == (200, True)
            told = httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text.splitlines()
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
            assert worker.terminate() == 0
            lines = [json.loads(each) for each in worker.rest_of_stderr()]
            (line,) = [each for each in lines if "wake-ups are carried by" in each["message"]]
            assert (line["level"], line["logger"]) == ("info", "runglass.bus.process_bus")
            assert f"http://127.0.0.1:{port} has /metrics, /health and /ready" in [
                each["message"] for each in lines
            ]


def ask(port: int, path: str) -> tuple[int, dict[str, Any]]:
    answer = httpx2.get(f"http://127.0.0.1:{port}{path}", timeout=60)
    return answer.status_code, answer.json()
