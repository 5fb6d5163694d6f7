"""What reading a small trace must not cost more than: hand-overs to threads, and writes to the socket."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from runglass import Client
from runglass.server.http.response_writer import HeadBufferingTransport
from runglass.store.sqlite.worker_threads import WorkerThreads
from runglass.testing import RunningServer, running_server

FLOW = "slug: f\nsteps: [{id: s, type: passthrough}]"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        running.push(FLOW)
        yield running


@pytest.fixture(scope="module")
def run_id(server: RunningServer) -> str:
    with Client(server.key, base_url=server.base_url) as client:
        return client.flow("acme/demo/f").execute().execution_id


def test_a_small_trace_is_one_hand_over_and_one_write(
    server: RunningServer, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each further hand-over would cost a quarter of the whole request."""
    put, send = WorkerThreads.put, HeadBufferingTransport.write
    reads: list[object] = []
    writes: list[bytes] = []

    def counted_put(lane: WorkerThreads[Any], work: Any) -> Any:
        if "writer" not in lane.name:
            reads.append(work)
        return put(lane, work)

    def counted_write(joining: HeadBufferingTransport, data: bytes) -> None:
        send(joining, data)
        if not joining._head:
            writes.append(data)

    with httpx2.Client(headers={"Authorization": f"Bearer {server.key}"}) as client:
        monkeypatch.setattr(WorkerThreads, "put", counted_put)
        monkeypatch.setattr(HeadBufferingTransport, "write", counted_write)
        answer = client.get(f"{server.base_url}/flow-runs/{run_id}/trace")
    assert answer.json()["steps"][0]["stepId"] == "s"
    assert len(reads) == 1
    assert len(writes) == 1
