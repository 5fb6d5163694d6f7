"""How long a claim of ten runs takes while very many wait in the queue of PostgreSQL."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from statistics import quantiles

import uvloop

from bench import flows
from bench.queued import add_runs
from bench.rows import Row
from bench.stage import Stage
from runglass.clock import iso
from runglass.store.postgres.store import PostgresStore

PROJECTS = 100
"""The waiting runs are of so many."""
AT_ONCE = 10


def rows(stage: Stage) -> Iterator[Row]:
    queued = stage.sizes.queued_runs
    with stage.postgres.database() as database, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for run_id in runner.run(_first_runs(database)):
            add_runs(stage.postgres, database, run_id, queued // PROJECTS - 1)
        stage.postgres.ask("ANALYZE", database=database)
        for claimers in stage.sizes.claimers:
            samples = [
                runner.run(_claims_ms(database, claimers, stage.sizes.claims))
                for _ in range(stage.sizes.rounds)
            ]
            who = "" if claimers == 1 else f", {claimers} claimers at once"
            for name, cut in (("p50", 49), ("p99", 98)):
                yield Row(
                    figure=f"claim {AT_ONCE} of {queued:,} waiting runs{who}, {name}",
                    unit="ms",
                    ours=[quantiles(took_ms, n=100)[cut] for took_ms in samples],
                    note=f"the runs are of {PROJECTS} projects; a claim is a transaction that is synced",
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


async def _claims_ms(database: str, claimers: int, claims: int) -> list[float]:
    """Of claims by so many stores of this process at once: each has connections of its own."""
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(PostgresStore(database)) for _ in range(claimers)]
        for number, store in enumerate(stores):
            await store.hold_lease(f"owner-{number}", until="9999-01-01T00:00:00.000Z", renew=False)
        found = await asyncio.gather(
            *(_claim(store, f"owner-{number}", claims) for number, store in enumerate(stores))
        )
        for number, store in enumerate(stores):
            # So that as many wait the next time.
            await store.end_lease(f"owner-{number}")
    return [took_ms for each in found for took_ms in each]


async def _claim(store: PostgresStore, owner: str, claims: int) -> list[float]:
    found = []
    for _ in range(claims):
        now = iso(datetime.now(UTC))
        began_s = time.perf_counter()
        claimed = await store.claim_runs(owner, now=now, limit=AT_ONCE)
        found.append((time.perf_counter() - began_s) * 1000)
        if not claimed:
            raise ValueError("a claim found nothing to claim")
    return found
