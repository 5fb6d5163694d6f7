"""How much longer a project's job takes while very many jobs of another one wait before it."""

from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median

from bench import flows
from bench.children import child
from bench.queued import add_runs
from bench.rows import Goal, Row
from bench.stage import Stage, worker

STEPS = 5
JOB, FLOOD = "job", "flood"


def rows(stage: Stage) -> Iterator[Row]:
    flood = stage.sizes.flood_runs
    alone_ms = median(_jobs_ms(stage, 0)[0])
    beside_ms, left = _jobs_ms(stage, flood)
    yield Row(
        figure=f"delay of a job while {flood:,} of another project wait",
        unit="ms",
        ours=[took_ms - alone_ms for took_ms in beside_ms],
        goal=Goal(at=2000),
        note=f"jobs of {STEPS} no-op steps, one after the other, in one worker with default settings; alone"
        f" one takes {alone_ms:.0f} ms; {left:,} of the others still waited after the last",
    )


def _jobs_ms(stage: Stage, flood: int) -> tuple[list[float], int]:
    """How long each of some jobs takes, from the call to the answer; how many runs wait after that."""
    with ExitStack() as stack:
        database = stack.enter_context(stage.postgres.database())
        submitter = stack.enter_context(child("bench.workers.submitter", database))
        for project in (JOB, FLOOD):
            submitter.ask(project=project, flow=flows.chain(STEPS))
        if flood:
            (first,) = submitter.ask(project=FLOOD, slug="chain", submit=1)["ids"]
            add_runs(stage.postgres, database, first, flood - 1)
        stack.enter_context(worker(database))
        found: list[float] = submitter.ask(project=JOB, slug="chain", jobs=stage.sizes.jobs)["ms"]
        return found, stage.postgres.ask("SELECT count(*) FROM queue", database=database)
