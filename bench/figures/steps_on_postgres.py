"""Durable steps on PostgreSQL by workers that share a queue, beside the peer's workers and our SQLite."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from bench import flows, processor
from bench.children import Child, child
from bench.measuring import side_by_side
from bench.rows import Goal, Row
from bench.stage import Stage, worker

OURS, PEER, SQLITE = "ours", "dbos", "sqlite"
ROUNDS = 3


class _Side:
    """Runs that one process puts into a queue at the same time: the steps that are done in a second.

    `spent_us` has a number for each time: what a step took of the processors, in these processes.
    """

    def __init__(self, submitter: Child, pids: Sequence[int], steps: int, message: Mapping[str, Any]) -> None:
        self._submitter = submitter
        self._pids = [submitter.pid, *pids]
        self._steps = steps
        self._message = message
        self.spent_us: list[float] = []

    def __call__(self) -> float:
        spent_s, began_s = processor.spent_s(*self._pids), time.perf_counter()
        self._submitter.ask(**self._message)
        took_s = time.perf_counter() - began_s
        self.spent_us.append((processor.spent_s(*self._pids) - spent_s) / self._steps * 1e6)
        return self._steps / took_s


def rows(stage: Stage) -> Iterator[Row]:
    for runs in stage.sizes.runs_at_once:
        each = max(1, stage.sizes.queued_steps // runs)
        on_sqlite: list[float] = []
        for count in stage.sizes.workers:
            found, spent = _found(stage, count, runs, each)
            on_sqlite += found[SQLITE]
            what = f"{runs} runs in {count} worker" + ("" if count == 1 else "s")
            yield Row(
                figure=f"no-op steps, {what}",
                unit="steps/s",
                better="more",
                ours=found[OURS],
                peers={PEER: found.get(PEER, ())},
                goal=Goal(over_peer=10),
                note=f"{stage.sizes.queued_steps:,} traced, durable steps in all runs, from the first call to"
                " the end of all, accepted by a process that executes none; PostgreSQL syncs each commit; the"
                " peer has as many workers, with as many slots each, on its own queue",
            )
            yield Row(
                figure=f"CPU of each, {what} and in the database",
                unit="us",
                ours=spent[OURS],
                peers={PEER: spent.get(PEER, ())},
            )
        yield Row(
            figure=f"the same steps, {runs} runs on SQLite, FULL, in turns with these",
            unit="steps/s",
            better="more",
            ours=on_sqlite,
            note="one process accepts the runs and executes them",
        )


def _found(
    stage: Stage, count: int, runs: int, each: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """The samples of each side with so many workers, in steps a second and in processor time of each."""
    rounds = min(stage.sizes.rounds, ROUNDS)
    with _ours(stage, count, runs, each) as ours, _sqlite(stage, runs, each) as on_sqlite:
        sides = {OURS: ours, SQLITE: on_sqlite}
        with _peer(stage, count, runs, each) as peer:
            if peer is not None:
                sides[PEER] = peer
            found = side_by_side(sides, rounds=rounds)
    return found, {name: side.spent_us[-rounds:] for name, side in sides.items()}


@contextmanager
def _ours(stage: Stage, count: int, runs: int, each: int) -> Iterator[_Side]:
    with ExitStack() as stack:
        database = stack.enter_context(stage.postgres.database())
        submitter = stack.enter_context(child("bench.workers.submitter", database))
        submitter.ask(project=flows.PROJECT, flow=flows.chain(each))
        places = _places(count, runs)
        workers = [stack.enter_context(worker(database, "--concurrency", places)) for _ in range(count)]
        pids = [stage.postgres.pid, *(process.pid for process in workers)]
        message = {"project": flows.PROJECT, "slug": "chain", "finish": runs}
        yield _Side(submitter, pids, runs * each, message)


@contextmanager
def _sqlite(stage: Stage, runs: int, each: int) -> Iterator[_Side]:
    with stage.new_folder() as folder, child("bench.workers.chains", folder / "ours") as process:
        process.ask(steps=each)
        yield _Side(process, (), runs * each, {"runs": runs})


@contextmanager
def _peer(stage: Stage, count: int, runs: int, each: int) -> Iterator[_Side | None]:
    with ExitStack() as stack:
        address = stack.enter_context(stage.postgres.database())
        workers: list[Child] = []
        for number in range(count):
            name, places = f"worker-{number}", _places(count, runs)
            process = stack.enter_context(stage.peer(f"{PEER}_worker", address, name, places))
            if process is None:
                yield None
                return
            if not workers:
                # The first one sets the database up.
                process.ask()
            workers.append(process)
        for process in workers[1:]:
            process.ask()
        submitter = stack.enter_context(stage.peer(f"{PEER}_submitter", address))
        assert submitter is not None
        pids = [stage.postgres.pid, *(process.pid for process in workers)]
        yield _Side(submitter, pids, runs * each, {"runs": runs, "steps": each})


def _places(count: int, runs: int) -> int:
    """How many runs go on at once in each of so many workers, so that all of them go on at once."""
    return -(-runs // count)
