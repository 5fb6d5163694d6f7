"""The well-behaved neighbour: a process of its own that does a little of everything and times it.

Run as `python -m tests.prove.attacking.neighbour HOST PORT KEY`; it writes a line of JSON for each call.
What fails, or gives something else than it must, is noted as a fault. Knows nothing of the attack.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple, TypeAlias

from tests.prove.attacking.http import NEIGHBOUR, Answer, Connection, call, started

Kind: TypeAlias = Literal["run", "read", "stream", "health"]

EVERY_S: dict[Kind, float] = {"run": 0.05, "read": 0.05, "stream": 0.2, "health": 0.1}
LIMIT_S: dict[Kind, float] = {"run": 6.0, "read": 6.0, "stream": 6.0, "health": 3.0}
"""How long it waits before it gives up, which is a fault."""

GAVE_UP = "no answer within"
MESSAGE = "the quiet neighbour says seven words"
PLACE = f"/api/v1/seq/{NEIGHBOUR}/quiet"


class Sample(NamedTuple):
    """One thing done: when, by the monotonic clock that all processes share, and how long it took."""

    kind: Kind
    begun_s: float
    ms: float
    fault: str | None
    run_id: str | None

    @property
    def gave_up(self) -> bool:
        return self.fault is not None and GAVE_UP in self.fault


class Fault(Exception):
    """The server gave something else than it must."""


def require(answer: Answer, status: int, what: str) -> None:
    """Raises Fault for an answer with another status."""
    if answer.status != status:
        raise Fault(f"{what} gave {answer.status}: {answer.fault}{answer.body[:200]!r}")


class Neighbour:
    """The loops. Runs and reads keep a connection open, as clients do; the others make one each time."""

    def __init__(self, address: tuple[str, int], key: str) -> None:
        self._address = address
        self._headers = [("Authorization", f"Bearer {key}")]
        self._kept: dict[Kind, Connection] = {}
        self._last_run: str | None = None
        self._turn = 0

    async def go_on(self) -> None:
        """Never returns."""
        ways: dict[Kind, Callable[[], Awaitable[str | None]]] = {
            "run": self._run,
            "read": self._read,
            "stream": self._stream,
            "health": self._health,
        }
        await asyncio.gather(*[self._repeat(kind, do) for kind, do in ways.items()])

    async def _repeat(self, kind: Kind, do: Callable[[], Awaitable[str | None]]) -> None:
        while True:
            begun_s, fault, run_id = time.monotonic(), None, None
            try:
                async with asyncio.timeout(LIMIT_S[kind]):
                    run_id = await do()
            except TimeoutError:
                fault = f"{GAVE_UP} {LIMIT_S[kind]:g} s"
            except (OSError, EOFError, Fault) as error:
                fault = f"{type(error).__name__}: {error}"[:300]
            took_s = time.monotonic() - begun_s
            if fault is not None and (kept := self._kept.pop(kind, None)) is not None:
                kept.abort()
            sample = Sample(kind, begun_s, took_s * 1000, fault, run_id)
            sys.stdout.write(json.dumps(sample) + "\n")
            sys.stdout.flush()
            await asyncio.sleep(max(0.02, EVERY_S[kind] - took_s))

    async def _ask(self, kind: Kind, method: str, target: str, body: Any = None) -> Any:
        if kind not in self._kept:
            self._kept[kind] = await Connection.open(self._address)
        data = None if body is None else json.dumps(body).encode()
        answer = await self._kept[kind].ask(method, target, data, headers=self._headers)
        require(answer, 200, f"{method} {target}")
        return answer.json()

    async def _run(self) -> str:
        done = await self._ask("run", "POST", f"{PLACE}/execute", {"message": MESSAGE})
        if done["result"] != {"text": MESSAGE}:
            raise Fault(f"the run gave {done['result']}")
        self._last_run = str(done["executionId"])
        return self._last_run

    async def _read(self) -> None:
        self._turn += 1
        if self._last_run is None or self._turn % 2:
            await self._ask("read", "GET", "/api/v1/flow-runs?limit=5")
            return
        trace = await self._ask("read", "GET", f"/api/v1/flow-runs/{self._last_run}/trace")
        if [step["status"] for step in trace["steps"]] != ["completed"] * 3:
            raise Fault(f"the trace of a completed run has {trace['steps']}")

    async def _stream(self) -> str:
        body = json.dumps({"message": MESSAGE}).encode()
        started = await call(self._address, "POST", f"{PLACE}/jobs", body, headers=self._headers)
        require(started, 202, "a job")
        run_id = str(started.json()["executionId"])
        await require_whole(self._address, run_id, self._headers)
        return run_id

    async def _health(self) -> None:
        require(await call(self._address, "GET", "/health", timeout_s=LIMIT_S["health"]), 200, "/health")


async def require_whole(address: tuple[str, int], run_id: str, headers: Iterable[tuple[str, str]]) -> None:
    """Reads a run's stream to its end. Raises Fault where an event is missing or it did not end well."""
    target = f"/api/v1/flow-runs/{run_id}/trace/stream"
    answer = await call(address, "GET", target, headers=[*headers], timeout_s=LIMIT_S["stream"])
    require(answer, 200, f"the stream of run {run_id}")
    lines = answer.body.split(b"\n")
    seqs = [int(line[4:]) for line in lines if line.startswith(b"id: ")]
    events = [line[7:].decode() for line in lines if line.startswith(b"event: ")]
    if seqs != list(range(1, len(seqs) + 1)) or events[-1:] != ["flow_completed"]:
        raise Fault(f"the stream of run {run_id} has events {seqs}, the last is {events[-1:]}")


class Samples:
    """What the neighbour's process has told so far."""

    def __init__(self) -> None:
        self.all: list[Sample] = []

    def begun(
        self, since_s: float, until_s: float = float("inf"), *, kind: Kind | None = None
    ) -> list[Sample]:
        return [
            each
            for each in self.all
            if since_s <= each.begun_s < until_s and (kind is None or each.kind == kind)
        ]

    async def every_kind_since(self, since_s: float, *, count: int, limit_s: float) -> bool:
        """Returns when so many of each kind, begun since, are over; False where that takes too long."""
        deadline_s = time.monotonic() + limit_s
        while any(len(self.begun(since_s, kind=kind)) < count for kind in EVERY_S):
            if time.monotonic() > deadline_s:
                return False
            await asyncio.sleep(0.03)
        return True

    async def read(self, pipe: asyncio.StreamReader) -> None:
        async for line in pipe:
            self.all.append(Sample(*json.loads(line)))


@asynccontextmanager
async def neighbour(address: tuple[str, int], key: str) -> AsyncIterator[Samples]:
    samples = Samples()
    async with asyncio.TaskGroup() as group, started("neighbour", address[0], str(address[1]), key) as told:
        group.create_task(samples.read(told))
        yield samples


if __name__ == "__main__":
    host, port, own_key = sys.argv[1:]
    asyncio.run(Neighbour((host, int(port)), own_key).go_on())
