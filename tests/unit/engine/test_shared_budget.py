"""A budget that several processes take from: who waits for it holds up nobody else."""

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest

from runglass.engine.models.budget import Budgets
from runglass.store.postgres.store import PostgresStore
from runglass.store.records import RunRecord
from tests.conformance.stores import make_run
from tests.postgres_server import connected, postgres_server, until_waiting

RUNS = 20


@pytest.mark.slow
async def test_calls_that_wait_for_a_budget_leave_connections_to_others(tmp_path: Path) -> None:
    address = await (await asyncio.to_thread(postgres_server)).database_of(tmp_path)
    async with PostgresStore(address) as store:
        [run, *_] = [await make_run(store, f"run-{number}") for number in range(RUNS)]
        await store.set_budget(run.project_id, Decimal(RUNS))
        await store.hold_lease("me", until="2999-01-01", renew=False)
        runs = await store.claim_runs("me", now="2026-01-01", limit=RUNS)
        budgets = Budgets(store, store.clock)

        async def reserve(run: RunRecord) -> None:
            async with budgets.reserved(run, Decimal("0.1")):
                pass

        async with connected(address) as other, asyncio.timeout(30):
            async with other.transaction():
                await other.execute("SELECT FROM project WHERE id = $1 FOR UPDATE", run.project_id)
                reserving = [asyncio.create_task(reserve(each)) for each in runs]
                await until_waiting(address)
                assert await store.project(run.project_id) is not None
            await asyncio.gather(*reserving)
