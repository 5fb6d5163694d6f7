"""How long runs stand still when their worker is killed, and when PostgreSQL is restarted."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.children import BenchError, Server, child
from bench.rows import Goal, Row
from bench.stage import Stage, worker

RUNS = 20
STEPS = 300
ROUNDS = 3
PATIENCE_S = 60.0
LOOK_S = 0.02
PROJECT = "bench"
FLOW = "\n".join(
    ["slug: slow", "steps:", *(f"  - {{id: step-{number}, type: wait, ms: 200}}" for number in range(STEPS))]
)


def rows(stage: Stage) -> Iterator[Row]:
    rounds = min(stage.sizes.rounds, ROUNDS)
    yield Row(
        figure=f"from kill -9 of a worker until its {RUNS} runs continue in another",
        unit="s",
        ours=[_killed_s(stage) for _ in range(rounds)],
        goal=Goal(at=15),
        note="with the default lease, until a run's first event in the other process",
    )
    yield Row(
        figure=f"from PostgreSQL's restart until all {RUNS} runs continue",
        unit="s",
        ours=[_restarted_s(stage) for _ in range(rounds)],
        note="one worker, whose steps take 200 ms, which is included",
    )


def _killed_s(stage: Stage) -> float:
    with _running(stage) as (database, first), worker(database):
        os.kill(first.pid, signal.SIGKILL)
        killed_s = time.monotonic()
        # Whoever claims a run gives it another fence.
        fences = stage.postgres.ask("SELECT array_agg(fence) FROM run", database=database)
        known = ", ".join(map(str, fences))
        _until_all(stage, database, f"fence NOT IN ({known}) AND head > claimed_head")
        return time.monotonic() - killed_s


def _restarted_s(stage: Stage) -> float:
    with _running(stage) as (database, _):
        stage.postgres.stop()
        stage.postgres.start()
        accepting_s = time.monotonic()
        before = _heads(stage, database)
        _until(lambda: all(now > head for now, head in zip(_heads(stage, database), before, strict=True)))
        return time.monotonic() - accepting_s


def _heads(stage: Stage, database: str) -> list[int]:
    found: list[int] = stage.postgres.ask("SELECT array_agg(head ORDER BY no) FROM run", database=database)
    return found


@contextmanager
def _running(stage: Stage) -> Iterator[tuple[str, Server]]:
    """A database with runs that go on in a worker, which is its own."""
    with (
        stage.postgres.database() as database,
        child("bench.workers.submitter", database) as submitter,
        worker(database) as process,
    ):
        submitter.ask(project=PROJECT, flow=FLOW)
        submitter.ask(project=PROJECT, slug="slow", submit=RUNS)
        _until_all(stage, database, "status = 'running' AND head > 1")
        yield database, process


def _until_all(stage: Stage, database: str, condition: str) -> None:
    """Waits until this is so of all runs."""
    sql = f"SELECT count(*) FROM run WHERE {condition}"
    _until(lambda: stage.postgres.ask(sql, database=database) == RUNS)


def _until(is_so: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > until_s:
            raise BenchError(f"not all runs go on after {PATIENCE_S:.0f} s")
        time.sleep(LOOK_S)
