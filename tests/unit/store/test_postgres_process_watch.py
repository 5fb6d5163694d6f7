"""One process runs flows on a PostgreSQL: others are refused, waited for where they are dead, or told of."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from runglass.clock import SystemClock, iso
from runglass.store.data_lock import DataInUse
from runglass.store.postgres.process_watch import ProcessWatch
from runglass.store.postgres.store import PostgresStore
from tests.postgres_server import postgres_server

LEASE_S = 0.3


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[tuple[PostgresStore, PostgresStore]]:
    address = await (await asyncio.to_thread(postgres_server)).database_of(tmp_path)
    async with PostgresStore(address) as ours, PostgresStore(address) as theirs:
        yield ours, theirs


def watch_of(store: PostgresStore) -> ProcessWatch:
    return ProcessWatch(store, SystemClock(), name="the database", lease_s=LEASE_S)


async def hold(store: PostgresStore, owner: str, *, for_s: float, renew: bool = False) -> None:
    until = iso(SystemClock().now() + timedelta(seconds=for_s))
    assert await store.hold_lease(owner, until=until, renew=renew)


async def test_a_dead_process_is_waited_for_until_its_lease_runs_out(
    stores: tuple[PostgresStore, PostgresStore],
) -> None:
    ours, theirs = stores
    await hold(theirs, "dead", for_s=LEASE_S)
    began_s = SystemClock().monotonic_s()
    async with asyncio.timeout(10):
        await watch_of(ours).wait_until_alone()
    assert SystemClock().monotonic_s() - began_s > LEASE_S / 2


@pytest.mark.parametrize(("owner", "renew"), [("theirs", True), ("another", False)])
async def test_where_a_lease_is_renewed_or_taken_the_start_is_refused(
    stores: tuple[PostgresStore, PostgresStore], owner: str, renew: bool
) -> None:
    ours, theirs = stores
    await hold(theirs, "theirs", for_s=60)
    waiting = asyncio.create_task(watch_of(ours).wait_until_alone())
    await asyncio.sleep(LEASE_S)
    assert not waiting.done()
    await hold(theirs, owner, for_s=70, renew=renew)
    async with asyncio.timeout(10):
        with pytest.raises(DataInUse, match="the database"):
            await waiting


async def test_a_running_process_is_told_of_another_and_not_of_itself(
    stores: tuple[PostgresStore, PostgresStore],
) -> None:
    ours, theirs = stores
    await hold(ours, "ours", for_s=60)
    watching = asyncio.create_task(watch_of(ours).watch_forever())
    await asyncio.sleep(2 * LEASE_S)
    assert not watching.done()
    await hold(theirs, "theirs", for_s=60)
    async with asyncio.timeout(10):
        with pytest.raises(DataInUse, match="the database"):
            await watching
