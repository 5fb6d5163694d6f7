"""Callers of servers that execute nothing, while the worker that has their runs is killed."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.contract.wire import frames
from tests.e2e.test_workers import WAIT_S, Shop
from tests.postgres_server import postgres_database

PATH = "/seq/acme/shop/work"


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with postgres_database() as address, Shop(tmp_path, address, {"RUNGLASS_LEASE_S": "5"}) as opened:
        yield opened


def test_calls_are_answered_by_the_worker_that_takes_over_from_a_killed_one(shop: Shop) -> None:
    killed = shop.worker()
    [cancelled] = shop.start(1)
    with ThreadPoolExecutor(3) as pool:
        streamed = pool.submit(shop.http.post, f"{PATH}/step", json={"runRemaining": True})
        executed = pool.submit(shop.http.post, f"{PATH}/execute", json={})
        until_all_are_long(shop, 3)
        killed.kill()
        ended = pool.submit(shop.http.delete, f"/flow-runs/{cancelled}")
        shop.worker()
        answer = executed.result(WAIT_S)
        told = frames(streamed.result(WAIT_S).text)
        assert ended.result(WAIT_S).json() == {"executionId": cancelled, "status": "cancelled"}
    assert (answer.status_code, answer.json()["result"]) == (200, {"done": 2})
    events = [frame for frame in told if frame.id]
    assert [frame.id for frame in events] == [str(seq) for seq in range(1, len(events) + 1)]
    assert [frame.data["error"]["code"] for frame in told if frame.event == "step_retrying"] == [
        "WORKER_LOST"
    ]
    outputs = [frame.data["output"] for frame in told if frame.event == "step_completed"]
    assert outputs == [{"done": 1}, {"done": 1}, {"done": 2}]
    assert "last" not in {step["stepId"] for step in shop.trace(cancelled)["steps"]}


def until_all_are_long(shop: Shop, count: int) -> None:
    """Returns when so many runs are in their long step."""
    deadline = time.monotonic() + WAIT_S
    while True:
        ids = [run["id"] for run in shop.http.get("/flow-runs").json()["runs"]]
        if len(ids) == count:
            return shop.until_long(ids)
        assert time.monotonic() < deadline
