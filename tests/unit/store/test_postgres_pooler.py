"""A store behind a pgbouncer that has few connections, and hands them out for one transaction each."""

import asyncio

import asyncpg
import pytest

from runglass.bus.postgres import PostgresCarrier
from runglass.bus.process_bus import ProcessBus
from runglass.store.postgres.store import PostgresStore
from tests.conformance.stores import batch, make_run
from tests.postgres_pooler import CONNECTIONS, MISSING, Pooler, pgbouncer_path, pooler
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(pgbouncer_path() is None, reason=MISSING)]

RUNS = 5 * CONNECTIONS


async def test_more_calls_than_the_pooler_has_connections_wait_for_each_other(address: str) -> None:
    pooled = (await asyncio.to_thread(pooler)).address(address)
    async with PostgresStore(pooled) as one, PostgresStore(pooled) as other:
        runs = await asyncio.gather(*(make_run(one, f"run-{number}") for number in range(RUNS)))

        async def work(number: int) -> list[tuple[int, bytes]]:
            for head in range(3):
                await (one, other)[head % 2].append(batch(runs[number], head, b"%d" % head))
            return list(await other.events(runs[number].no, after=0, limit_bytes=1000))

        written = await asyncio.gather(*map(work, range(RUNS)))
        assert written == [[(1, b"0"), (2, b"1"), (3, b"2")]] * RUNS
        administrator = await asyncpg.connect(address)
        sessions = await administrator.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid()"
        )
        await administrator.close()
    assert 1 <= sessions <= CONNECTIONS, "they went past the pooler"


async def test_a_pooler_that_is_started_anew_loses_nothing_and_writes_nothing_twice(address: str) -> None:
    own = await asyncio.to_thread(Pooler)
    try:
        async with PostgresStore(own.address(address), patience_s=60.0) as store:
            run = await make_run(store)
            heads = iter(range(40))
            begun = asyncio.Event()

            async def write() -> None:
                for head in heads:
                    await store.append(batch(run, head, b"%d" % head))
                    if head == 10:
                        begun.set()

            writing = asyncio.create_task(write())
            await begun.wait()
            await asyncio.to_thread(own.kill)
            await asyncio.to_thread(own.start)
            await writing
            events = await store.events(run.no, after=0, limit_bytes=1000)
            assert [text for _, text in events] == [b"%d" % head for head in range(40)]
    finally:
        await asyncio.to_thread(own.close)


async def test_wake_ups_do_not_come_by_way_of_it_and_the_log_says_what_to_set(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    pooled = (await asyncio.to_thread(pooler)).address(address)
    bus = ProcessBus(PostgresCarrier(pooled), echo_s=0.1)
    task = asyncio.create_task(bus.run_forever())
    await until(lambda: caplog.records)
    task.cancel()
    await asyncio.wait({task})
    [told] = caplog.records
    assert "set RUNGLASS_BUS to an address of the database without the pooler" in told.message
    assert bus.fault
