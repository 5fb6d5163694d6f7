"""A budget that several processes take from at once: none of it is given out twice, and none is withheld."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from runglass.engine.models.budget import BudgetExceeded, Budgets
from runglass.store.postgres.store import PostgresStore
from runglass.store.records import RunRecord
from tests.conformance.stores import batch, make_run
from tests.postgres_server import postgres_server, until_one_waits

pytestmark = pytest.mark.slow

BUDGET, RUNS = 7, 20
UNHELD = uuid4()


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[list[PostgresStore]]:
    address = await (await asyncio.to_thread(postgres_server)).database_of(tmp_path)
    async with PostgresStore(address) as one, PostgresStore(address) as two:
        yield [one, two]


async def claimed_runs(store: PostgresStore) -> list[RunRecord]:
    [run, *_] = [await make_run(store, f"run-{number}") for number in range(RUNS)]
    await store.set_budget(run.project_id, Decimal(BUDGET))
    await store.hold_lease("me", until="2999-01-01", renew=False)
    return await store.claim_runs("me", now="2026-01-01", limit=RUNS)


async def test_processes_that_reserve_at_once_are_given_the_budget_and_no_more(
    stores: list[PostgresStore],
) -> None:
    runs = await claimed_runs(stores[0])
    budgets = [Budgets(store, store.clock) for store in stores]
    refused: list[str] = []

    async def reserve(number: int, run: RunRecord) -> None:
        try:
            async with budgets[number % 2].reserved(run, Decimal(1)):
                await stores[number % 2].append(batch(run, 0, b"1", owner="me", reserved_usd=Decimal(1)))
        except BudgetExceeded as error:
            refused.append(str(error))

    async with asyncio.timeout(30):
        await asyncio.gather(*(reserve(number, run) for number, run in enumerate(runs)))
    project = await stores[1].project(runs[0].project_id)
    assert project is not None
    assert project.reserved_usd == BUDGET
    assert len(refused) == RUNS - BUDGET
    assert all(f"of the project's budget of ${BUDGET}" in each for each in refused)
    assert (await stores[0].hold_budget(UNHELD, runs[0], Decimal(1))).held_usd == 0, "all were given back"


async def test_calls_that_wait_for_a_budget_leave_connections_to_others(
    stores: list[PostgresStore], tmp_path: Path
) -> None:
    runs = await claimed_runs(stores[0])
    budgets = Budgets(stores[0], stores[0].clock)
    address = await postgres_server().database_of(tmp_path)

    async def reserve(run: RunRecord) -> None:
        async with budgets.reserved(run, Decimal("0.1")):
            pass

    other = await asyncpg.connect(address)
    try:
        async with asyncio.timeout(30):
            async with other.transaction():
                await other.execute("SELECT FROM project WHERE id = $1 FOR UPDATE", runs[0].project_id)
                reserving = [asyncio.create_task(reserve(run)) for run in runs]
                await until_one_waits(address)
                assert await stores[0].project(runs[0].project_id) is not None
            await asyncio.gather(*reserving)
    finally:
        await other.close()


async def test_a_step_that_is_cut_off_gives_back_what_it_held(stores: list[PostgresStore]) -> None:
    [run, *_] = await claimed_runs(stores[0])
    reached = asyncio.Event()

    async def cut_off() -> None:
        async with Budgets(stores[0], stores[0].clock).reserved(run, Decimal(BUDGET)):
            reached.set()
            await asyncio.Event().wait()

    reserving = asyncio.create_task(cut_off())
    await reached.wait()
    assert not (await stores[1].hold_budget(UNHELD, run, Decimal(1))).has_room_for(Decimal(1))
    reserving.cancel()
    await asyncio.wait({reserving})
    assert (await stores[1].hold_budget(UNHELD, run, Decimal(1))).held_usd == 0
