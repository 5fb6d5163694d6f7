"""Callers of servers that execute nothing, while the worker that has their runs is killed."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.contract.wire import frames
from tests.e2e.test_workers import WAIT_S, Shop, followed
from tests.postgres_server import postgres_database

PATH = "/seq/acme/shop/work"


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with postgres_database() as address, Shop(tmp_path, address) as opened:
        yield opened


def test_calls_are_answered_by_the_worker_that_takes_over_from_a_killed_one(shop: Shop) -> None:
    killed = shop.worker()
    [cancelled] = shop.start(1)
    with ThreadPoolExecutor(3) as pool:
        streamed = pool.submit(shop.http.post, f"{PATH}/step", json={"runRemaining": True})
        executed = pool.submit(shop.http.post, f"{PATH}/execute", json={})
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
