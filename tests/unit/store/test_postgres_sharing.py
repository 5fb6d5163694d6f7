"""Several processes on one PostgreSQL: no run is claimed twice, no event lost, no change missed."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from runglass.errors import WrongExpectedVersion
from runglass.run_query import RunQuery
from runglass.store.postgres.store import PostgresStore
from tests.conformance.test_store import batch, make_run
from tests.postgres_server import postgres_server
from tests.records import new_run

STORES = 3
RUNS = 60


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[list[PostgresStore]]:
    address = await (await asyncio.to_thread(postgres_server)).database_of(tmp_path)
    async with PostgresStore(address) as one, PostgresStore(address) as two, PostgresStore(address) as three:
        yield [one, two, three]


async def test_no_run_is_claimed_twice_and_each_is_claimed(stores: list[PostgresStore]) -> None:
    first = await make_run(stores[0])
    for number in range(RUNS):
        await stores[0].create_run(new_run(first.project_id, first.flow_id, id=f"new-{number}"))
    claimed: list[str] = []

    async def claim(store: PostgresStore, owner: str) -> None:
        await store.hold_lease(owner, until="2030", renew=False)
        # What others have locked at this moment is passed over, so an empty answer is not the end.
        while len(claimed) < RUNS + 1:
            claimed.extend(run.id for run in await store.claim_runs(owner, now="2026", limit=3))

    await asyncio.gather(*(claim(store, str(number)) for number, store in enumerate(stores * 2)))
    assert len(claimed) == len(set(claimed)) == RUNS + 1


async def test_of_two_writers_of_a_run_one_alone_goes_on(stores: list[PostgresStore]) -> None:
    runs = [await make_run(stores[0], f"run-{number}") for number in range(20)]
    written: dict[int, int] = {run.no: 0 for run in runs}

    async def write(store: PostgresStore) -> None:
        for seq in range(5):
            outcomes = await asyncio.gather(
                *(store.append(batch(run, seq, b"e", spent_usd=Decimal(1), log_bytes=1)) for run in runs),
                return_exceptions=True,
            )
            for run, outcome in zip(runs, outcomes, strict=True):
                assert outcome is None or isinstance(outcome, WrongExpectedVersion)
                written[run.no] += outcome is None

    await asyncio.gather(*(write(store) for store in stores))
    assert set(written.values()) == {5}
    for run in runs:
        assert [seq for seq, _ in await stores[1].events(run.no, after=0, limit_bytes=99)] == [1, 2, 3, 4, 5]
    project = await stores[2].project(runs[0].project_id)
    assert project is not None
    assert project.spent_usd == 100


async def test_whoever_reads_on_from_a_change_misses_none(stores: list[PostgresStore]) -> None:
    first = await make_run(stores[0])
    seen: dict[str, int] = {}
    is_over = asyncio.Event()

    async def write(store: PostgresStore, name: str) -> None:
        for number in range(10):
            run = await store.create_run(new_run(first.project_id, first.flow_id, id=f"{name}-{number}"))
            await store.append(batch(run, 0, b"1"))
            await store.append(batch(run, 1, b"2", status="completed"))

    async def follow() -> None:
        after = 0
        while True:
            was_over = is_over.is_set()
            for change in await stores[2].changed_runs(first.project_id, RunQuery(), after=after, limit=5):
                assert change.number > after
                after = seen[change.run_id] = change.number
            if was_over and after == await stores[2].last_change(first.project_id):
                return

    following = asyncio.create_task(follow())
    await asyncio.gather(*(write(store, str(number)) for number, store in enumerate(stores)))
    is_over.set()
    await following
    changed = await stores[0].changed_runs(first.project_id, RunQuery(), after=0, limit=100)
    assert {each.run_id: each.number for each in changed} == seen
    assert await stores[0].last_change(first.project_id) == 1 + 3 * 30


async def test_what_cannot_be_stored_fails_alone(stores: list[PostgresStore]) -> None:
    runs = [await make_run(stores[0], f"run-{number}") for number in range(3)]
    outcomes = await asyncio.gather(
        *(
            stores[0].append(batch(run, 0, b"1", dropped=["\0" if number == 1 else "s"]))
            for number, run in enumerate(runs)
        ),
        return_exceptions=True,
    )
    assert [outcome is None for outcome in outcomes] == [True, False, True]
