"""Durable steps on PostgreSQL, in one process and in several, beside the peer on the same server."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from bench import processor
from bench.children import Child, child
from bench.measuring import side_by_side
from bench.rows import Goal, Row
from bench.stage import Stage

PEER, SQLITE = "dbos", "sqlite"


def rows(stage: Stage) -> Iterator[Row]:
    for runs in stage.sizes.runs_at_once:
        yield from _rows(stage, runs)


def _rows(stage: Stage, runs: int) -> Iterator[Row]:
    each = max(1, stage.sizes.steps_at_once // runs)
    peer_each = max(1, stage.sizes.peer_steps // runs)
    with ExitStack() as stack:
        database = stack.enter_context(stage.postgres.database())
        # The first one brings the database to the newest schema.
        processes = [
            stack.enter_context(child("bench.workers.chains", database))
            for _ in range(max(stage.sizes.workers))
        ]
        folder = stack.enter_context(stage.new_folder())
        on_sqlite = stack.enter_context(child("bench.workers.chains", folder / "ours"))
        for process in (processes[0], on_sqlite):
            process.ask(steps=each)
        ours = {str(count): processes[:count] for count in stage.sizes.workers}
        sides: dict[str, _Side] = {
            name: _Side(stage.postgres.pid, some, runs, each) for name, some in ours.items()
        }
        sides[SQLITE] = _Side(stage.postgres.pid, [on_sqlite], runs, each)
        peer_address = stack.enter_context(stage.postgres.database())
        peer = stack.enter_context(stage.peer(f"{PEER}_steps", peer_address))
        if peer is not None:
            sides[PEER] = _Side(stage.postgres.pid, [peer], runs, peer_each, is_peer=True)
        found = side_by_side(sides, rounds=stage.sizes.rounds)
        spent = {name: side.spent_us[-stage.sizes.rounds :] for name, side in sides.items()}
    for count in stage.sizes.workers:
        what = f"{runs} runs at once in {count} process" + ("" if count == 1 else "es")
        yield Row(
            figure=f"traced, durable no-op steps on PostgreSQL, {what}",
            unit="steps/s",
            better="more",
            ours=found[str(count)],
            **_beside(found),
            goal=Goal(over_peer=10),
            note="PostgreSQL syncs each commit, on the same processors; the peer has one process",
        )
        yield Row(
            figure=f"processor time of each, {what} and in the database",
            unit="us",
            ours=spent[str(count)],
            **_beside(spent),
        )
    yield Row(
        figure=f"the same steps in {runs} runs at once on SQLite, FULL, in turns with these",
        unit="steps/s",
        better="more",
        ours=found[SQLITE],
    )


def _beside(found: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    return {"peers": {PEER: found[PEER]}} if PEER in found else {"missing": (PEER,)}


class _Side:
    """Runs, in equal parts in some processes at the same time: the steps that are done in a second.

    `spent_us` has a number for each time: what a step took of the processors, in the database as well.
    """

    def __init__(
        self, database: int, processes: Sequence[Child], runs: int, each: int, *, is_peer: bool = False
    ) -> None:
        self._pids = [database, *(process.pid for process in processes)]
        self._processes = processes
        self._parts = [len(range(number, runs, len(processes))) for number in range(len(processes))]
        self._steps = runs * each
        self._is_peer = is_peer
        self._each = each
        self.spent_us: list[float] = []

    def __call__(self) -> float:
        spent_s, began_s = processor.spent_s(*self._pids), time.perf_counter()
        for process, part in zip(self._processes, self._parts, strict=True):
            if self._is_peer:
                process.tell(runs=part, steps=self._each)
            else:
                process.tell(runs=part)
        for process in self._processes:
            process.heard()
        took_s = time.perf_counter() - began_s
        self.spent_us.append((processor.spent_s(*self._pids) - spent_s) / self._steps * 1e6)
        return self._steps / took_s
