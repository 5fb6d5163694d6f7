"""What `prove cluster` notes in the database shows each write of a process that had lost its run."""

import asyncio
from pathlib import Path

import pytest

from runglass.errors import WrongExpectedVersion
from runglass.store.postgres.store import PostgresStore
from runglass.store.records import RunRecord
from tests.conformance.stores import batch, make_run
from tests.postgres_server import connected, postgres_server
from tests.prove.clustering.database import NOTES, plant_ignored_fence
from tests.prove.clustering.hands import Hand, hands_of, zombies
from tests.records import there

pytestmark = pytest.mark.slow


@pytest.fixture
async def address(tmp_path: Path) -> str:
    """A database with notes; who opens it may say who it is."""
    address = await (await asyncio.to_thread(postgres_server)).database_of(tmp_path)
    async with connected(address) as connection:
        await connection.execute(NOTES)
    return f"{address}{'&' if '?' in address else '?'}application_name="


async def test_a_write_by_who_has_lost_the_run_is_refused(address: str) -> None:
    with pytest.raises(WrongExpectedVersion):
        await lose_a_run_and_write(address)
    assert [*zombies(await hands(address))] == []


async def test_where_the_store_ignores_the_fence_such_a_write_is_seen(address: str) -> None:
    await plant_ignored_fence(address + "prove")
    run = await lose_a_run_and_write(address)
    assert [*zombies(await hands(address))] == [
        f"a zombie: run {run.no} belongs to two since fence {run.fence}, and one wrote its event 1"
    ]


async def lose_a_run_and_write(address: str) -> RunRecord:
    """The process `one` has a run, `two` gets it, as returned, and `one` writes."""
    async with PostgresStore(address + "one") as one, PostgresStore(address + "two") as two:
        run = await make_run(one)
        claimed = there(await two.claim_waiting(run))
        await one.append(batch(run, 0, b"{}"))
        return claimed


async def hands(address: str) -> list[Hand]:
    return await hands_of(address + "prove")
