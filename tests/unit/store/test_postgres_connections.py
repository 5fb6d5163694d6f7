"""Connections to PostgreSQL: they go back to the pool without a transaction; by way of a pooler; over TLS.

The PostgreSQL of the tests speaks no TLS itself, so something before it does.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import certifi
import pytest

from runglass.bus.carrier import BusAway
from runglass.bus.postgres import PostgresCarrier
from runglass.bus.process_bus import ProcessBus
from runglass.cli.exit_codes import Exit, exit_of
from runglass.errors import CommitUncertain, StoreError, StoreUnreachable
from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.store import PostgresStore
from runglass.store.records import RunRecord
from tests.conformance.stores import batch, make_run
from tests.postgres_pooler import CONNECTIONS, MISSING, Pooler, pgbouncer_path, pooler
from tests.postgres_proxy import CuttingProxy
from tests.postgres_server import connected, pool_of, postgres_server
from tests.unit.bus.test_carriers import TLS
from tests.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture
async def connections(address: str) -> AsyncIterator[Connections]:
    async with pool_of(address) as opened:
        yield opened


async def test_a_transaction_that_is_cut_off_is_rolled_back_and_no_error_is_logged(
    connections: Connections, caplog: pytest.LogCaptureFixture
) -> None:
    inside = asyncio.Event()

    async def lasting(db: Db) -> None:
        await db.execute("CREATE TABLE half_done ()")
        inside.set()
        await asyncio.Event().wait()

    async def failing(db: Db) -> None:
        await db.execute("CREATE TABLE half_done ()")
        raise RuntimeError("the work is wrong")

    writing = asyncio.create_task(connections.write(lasting))
    await inside.wait()
    writing.cancel()
    await asyncio.wait({writing})
    assert writing.cancelled()
    with pytest.raises(RuntimeError):
        await connections.write(failing)
    assert await connections.read(lambda db: db.fetchval("SELECT to_regclass('half_done')")) is None
    others = (
        "SELECT count(*), count(xact_start) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    [found] = await connections.read(lambda db: db.fetch(others))
    assert tuple(found) == (0, 0), "one connection was enough, and is in no transaction"
    assert not caplog.records


async def test_a_connection_that_the_server_ends_in_a_transaction_is_told_as_the_server_did(
    connections: Connections,
) -> None:
    async def ended(db: Db) -> None:
        await db.execute("BEGIN")
        await db.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(CommitUncertain, match="terminating connection due to administrator command"):
        await connections.repeat(ended, patience_s=0.0)
    assert await connections.read(lambda db: db.fetchval("SELECT 1")) == 1


async def test_the_isolation_that_a_role_prefers_is_not_what_transactions_have(address: str) -> None:
    async with pool_of(f"{address}&default_transaction_isolation=repeatable%20read") as opened:
        shown = "SHOW transaction_isolation"
        assert await opened.write(lambda db: db.fetchval(shown)) == "read committed"
        assert await opened.read(lambda db: db.fetchval(shown)) == "read committed"
        assert await opened.read_at_one_moment(lambda db: db.fetchval(shown)) == "repeatable read"


async def test_an_append_that_a_lock_timeout_of_the_role_ends_is_made_again(address: str) -> None:
    async with PostgresStore(f"{address}&lock_timeout=20", patience_s=60.0) as store:
        run = await make_run(store)
        async with connected(address) as other, connected(address) as watch:
            await other.execute("BEGIN; SELECT FROM run FOR UPDATE")
            appending = asyncio.create_task(store.append(batch(run, 0, b"1")))
            begun: set[datetime] = set()

            async def has_waited_twice() -> bool:
                rows = await watch.fetch(
                    "SELECT query_start FROM pg_stat_activity"
                    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
                begun.update(row[0] for row in rows)
                return len(begun) > 1

            await until(has_waited_twice)
            assert not appending.done()
            await other.execute("COMMIT")
            await appending
        assert await store.events(run.no, after=0, limit_bytes=9) == [(1, b"1")]


@pytest.fixture
async def few(address: str) -> AsyncIterator[tuple[Connections, str]]:
    """Those of a role that may have one connection, and its address."""
    server, by_few = postgres_server(), address.replace("//postgres", "//few")
    await server.execute("DROP ROLE IF EXISTS few", "CREATE ROLE few LOGIN CONNECTION LIMIT 1")
    async with pool_of(by_few, patience_s=60.0) as opened:
        yield opened, by_few
    await server.execute("DROP ROLE few")


async def test_where_a_role_may_have_no_more_connections_those_that_it_has_are_waited_for(
    few: tuple[Connections, str],
) -> None:
    opened, by_few = few
    has_one, go_on = asyncio.Event(), asyncio.Event()

    async def hold(db: Db) -> int:
        has_one.set()
        await go_on.wait()
        return int(await db.fetchval("SELECT pg_backend_pid()"))

    reading = [asyncio.create_task(opened.read(hold)) for _ in range(3)]
    await has_one.wait()
    # So is whoever asked before.
    with pytest.raises(asyncpg.TooManyConnectionsError):
        await asyncpg.connect(by_few)
    go_on.set()
    assert len(set(await asyncio.gather(*reading))) == 1, "it is kept"


async def test_who_had_no_connection_in_vain_does_not_keep_others_from_waiting_for_one(
    few: tuple[Connections, str],
) -> None:
    opened, by_few = few
    async with connected(by_few) as other:
        with pytest.raises(StoreUnreachable, match="too many connections for role"):
            await opened.repeat(lambda db: db.fetchval("SELECT 1"), patience_s=0.0)
        reading = asyncio.create_task(opened.read(lambda db: db.fetchval("SELECT 1")))
        # One more that is refused, while that one waits.
        with pytest.raises(StoreUnreachable):
            await opened.repeat(lambda db: db.fetchval("SELECT 1"), patience_s=0.0)
        assert not reading.done()
        await other.close()
        assert await reading == 1


async def test_a_call_that_is_cancelled_before_its_statement_leaves_no_transaction(
    connections: Connections,
) -> None:
    async def cancelled(db: Any) -> None:
        # The server has parsed the statement, and waits for what to do with it.
        await db.prepare("SELECT count(*) FROM pg_class")
        raise asyncio.CancelledError

    for _ in range(3):
        with pytest.raises(asyncio.CancelledError):
            await connections.repeat(cancelled)
        assert await connections.read_at_one_moment(lambda db: db.fetchval("SELECT 1")) == 1


async def test_a_server_that_takes_no_writes_is_called_so(address: str) -> None:
    async with pool_of(f"{address}&default_transaction_read_only=on", patience_s=3.0) as opened:
        with pytest.raises(StoreUnreachable, match="takes no writes, as a standby does; name the host"):
            await opened.read(lambda db: db.execute("CREATE TABLE t ()"))


with_pooler = pytest.mark.skipif(pgbouncer_path() is None, reason=MISSING)
"""A pgbouncer that has few connections, and hands them out for one transaction each."""
RUNS = 5 * CONNECTIONS


@with_pooler
async def test_more_calls_than_the_pooler_has_connections_wait_and_all_survive_its_new_start(
    address: str,
) -> None:
    own = await asyncio.to_thread(Pooler)
    pooled, begun = own.address(address), asyncio.Event()
    try:
        async with (
            PostgresStore(pooled, patience_s=60.0) as one,
            PostgresStore(pooled, patience_s=60.0) as other,
        ):
            runs = await asyncio.gather(*(make_run(one, f"run-{number}") for number in range(RUNS)))

            async def work(run: RunRecord) -> list[tuple[int, bytes]]:
                for head in range(20):
                    await (one, other)[head % 2].append(batch(run, head, b"%d" % head))
                    if head == 3:
                        begun.set()
                return list(await other.events(run.no, after=0, limit_bytes=1000))

            working = asyncio.gather(*map(work, runs))
            await begun.wait()
            async with connected(address) as administrator:
                sessions = await administrator.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND pid <> pg_backend_pid()"
                )
            await asyncio.to_thread(own.kill)
            await asyncio.to_thread(own.start)
            assert await working == [[(head + 1, b"%d" % head) for head in range(20)]] * RUNS
    finally:
        await asyncio.to_thread(own.close)
    assert 1 <= sessions <= CONNECTIONS, "they went past the pooler"


@with_pooler
async def test_wake_ups_do_not_come_by_way_of_a_pooler_and_the_log_says_what_to_set(
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


TRUSTED = f"sslmode=verify-full&sslrootcert={TLS}/cert.pem"
OF_OTHERS = f"sslmode=verify-full&sslrootcert={certifi.where()}"


@asynccontextmanager
async def encrypted(plain: str, *, speaks_tls: bool = True) -> AsyncIterator[str]:
    """The address of the database over TLS but for its options; or the server declines TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    proxy = CuttingProxy(plain)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        writer.write(b"S" if speaks_tls else b"N")
        try:
            await writer.start_tls(context)
        except OSError:
            writer.close()
        else:
            await proxy.serve(reader, writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"postgresql://postgres@127.0.0.1:{port}{urlsplit(plain).path}"


async def test_a_store_is_used_over_tls_and_the_bus_trusts_no_other_server_either(address: str) -> None:
    async with encrypted(address) as over_tls:
        async with PostgresStore(f"{over_tls}?{TRUSTED}") as store:
            run = await make_run(store)
            assert await store.run(run.id) is not None
        carrier = PostgresCarrier(f"{over_tls}?{OF_OTHERS}")
        with pytest.raises(BusAway, match="signed by none of the CAs that are trusted here"):
            await carrier.connect(hear=print, lost=print).__aenter__()


@pytest.mark.parametrize(
    ("host", "speaks_tls", "options", "said", "code"),
    [
        ("127.0.0.1", True, OF_OTHERS, "its certificate is signed by none of the CAs", Exit.UNREACHABLE),
        # The same machine by a name that the certificate has not.
        ("127.1", True, TRUSTED, "its certificate is for another host", Exit.UNREACHABLE),
        ("127.0.0.1", False, TRUSTED, "rejected SSL upgrade", Exit.UNREACHABLE),
        *(
            ("127.0.0.1", True, options, said, Exit.USAGE)
            for options, said in (
                ("sslmode=verify-full&sslrootcert=/none", "of sslrootcert cannot be read: No such file"),
                (f"sslmode=verify-full&sslrootcert={__file__}", "of sslrootcert has no certificate"),
                (f"sslmode=require&sslcert=/none&sslkey={__file__}", "of sslcert cannot be read"),
                ("sslmode=verify-ful", "`sslmode` parameter must be one of"),
            )
        ),
    ],
)
async def test_a_server_that_is_not_trusted_or_a_wrong_option_is_refused_in_one_sentence(
    address: str, host: str, speaks_tls: bool, options: str, said: str, code: Exit
) -> None:
    async def attempt(asked: str) -> None:
        async with pool_of(asked) as connections:
            await connections.repeat(lambda db: db.execute("SELECT 1"), patience_s=0.0)

    async with encrypted(address, speaks_tls=speaks_tls) as over_tls:
        with pytest.raises(StoreError) as refused:
            await attempt(f"{over_tls.replace('127.0.0.1', host)}?{options}")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "_ssl.c" not in str(refused.value)
    assert exit_of(refused.value) == code
