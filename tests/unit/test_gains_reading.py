"""What reading a small trace must not cost more than: hand-overs to threads, and writes to the socket."""

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import httpx2
import pytest

from runglass import Client
from runglass.server.http.exchange import JoiningTransport
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
    put, make = WorkerThreads.put, JoiningTransport.__init__
    reads: list[object] = []
    writes: list[bytes] = []

    def counted_put(lane: WorkerThreads[Any], work: Any) -> Any:
        if "writer" not in lane.name:
            reads.append(work)
        return put(lane, work)

    class Counted:
        def __init__(self, transport: asyncio.Transport) -> None:
            self._transport = transport

        def __getattr__(self, name: str) -> Any:
            return getattr(self._transport, name)

        def write(self, data: bytes) -> None:
            writes.append(data)
            self._transport.write(data)

    def over_counted(joining: JoiningTransport, transport: Any) -> None:
        make(joining, cast(asyncio.Transport, Counted(transport)))

    with httpx2.Client(headers={"Authorization": f"Bearer {server.key}"}) as client:
        monkeypatch.setattr(WorkerThreads, "put", counted_put)
        monkeypatch.setattr(JoiningTransport, "__init__", over_counted)
        answer = client.get(f"{server.base_url}/flow-runs/{run_id}/trace")
    assert answer.json()["steps"][0]["stepId"] == "s"
    assert len(reads) == 1
    assert len(writes) == 1
