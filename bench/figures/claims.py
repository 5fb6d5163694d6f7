"""How long a claim of ten runs takes while very many wait in the queue of PostgreSQL."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from statistics import quantiles

import uvloop

from bench import flows
from bench.children import Child, child
from bench.queued import add_runs
from bench.rows import Row
from bench.stage import Stage
from runglass.store.postgres.store import PostgresStore

PROJECTS = 100
"""The waiting runs are of so many."""
AT_ONCE = 10


def rows(stage: Stage) -> Iterator[Row]:
    queued = stage.sizes.queued_runs
    with stage.postgres.database() as database, ExitStack() as stack:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            first_runs = runner.run(_first_runs(database))
        for run_id in first_runs:
            add_runs(stage.postgres, database, run_id, queued // PROJECTS - 1)
        stage.postgres.ask("ANALYZE", database=database)
        claimers = [
            stack.enter_context(child("bench.workers.claimer", database))
            for _ in range(max(stage.sizes.claimers))
        ]
        for count in stage.sizes.claimers:
            samples = [_claims_ms(claimers[:count], stage.sizes.claims) for _ in range(stage.sizes.rounds)]
            who = "" if count == 1 else f", {count} processes at once"
            for name, cut in (("p50", 49), ("p99", 98)):
                yield Row(
                    figure=f"claim {AT_ONCE} of {queued:,} waiting runs{who}, {name}",
                    unit="ms",
                    ours=[quantiles(took_ms, n=100)[cut] for took_ms in samples],
                    note=f"the runs are of {PROJECTS} projects; a claim is a synced transaction",
                )


async def _first_runs(database: str) -> list[str]:
    """A waiting run in each project, by its id."""
    async with PostgresStore(database) as store:
        found = []
        for number in range(PROJECTS):
            project = await store.ensure_project("bench", f"bench-{number}")
            run_id = f"019a0000-0000-7000-8000-{number:012d}"
            run = await flows.create_run(store, project, "any", run_id, owner=None)
            found.append(run.id)
        return found


def _claims_ms(claimers: Sequence[Child], claims: int) -> list[float]:
    """Of so many claims by each of these processes, at once."""
    for each in claimers:
        each.tell(claims=claims, limit=AT_ONCE)
    took_ms = [took_ms for each in claimers for took_ms in each.heard()["ms"]]
    for each in claimers:
        # So that as many wait the next time.
        each.ask()
    return took_ms
