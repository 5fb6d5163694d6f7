"""Numbered SQL files to database schema, and partitions to months.

A database remembers which migrations it has had, and gets the missing ones, each in a transaction of its
own and by one process at a time. Programs of the version before may go on beside it: a migration says in
its first line which programs it would break, and those do not open the database any more. They wait for a
table that a migration changes, but not behind one that waits for it itself.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import asyncpg

from runglass.errors import StoreError, UpgradeRequired
from runglass.store.migration_files import FoldedSummary, Migration, migrations_in
from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.sql_helpers import page
from runglass.store.run_tables import EVENTS
from runglass.support.logs import FailureLog

log = logging.getLogger(__name__)

LOCK = 5_242_880_717
"""The advisory lock of migrations and partitions. Transactions hold it: a pooler lets no session do so."""
LEASES_LOCK = LOCK + 2
"""Whoever takes a lease shares this advisory lock; a migration that breaks programs has it alone."""
MONTHS_AHEAD = 2
"""Partitions are made for this month and as many after it: as long a process may run without making any."""
MIGRATION_S = 3600.0
"""A migration may take as long, and the wait for another process that migrates."""
LOCK_MS = 1500
"""So long a migration waits for a table, and everybody who comes behind it waits as well.

More than `deadlock_timeout`, a second: after that PostgreSQL stops an autovacuum that is in the way.
"""
BUSY_PAUSE_S = 1.0
"""Before it is tried again, so that the others get on."""

ENCODINGS = "UTF8", "SQL_ASCII"
"""Those of databases that take any text."""

DERIVED_ANEW = 18
"""The migration with which runs of older versions have their logs folded."""
LEASES_TELL = 12
"""The migration from which on leases say what the programs of their processes know."""

# Summaries count them behind `skipped`. The steps of other runs are not looked at.
_UNCOUNTED = (
    "SELECT no, summary FROM run WHERE encode(summary, 'escape')"
    """ ~ '"failed":[1-9][0-9]*,"retried":[0-9]+,"skipped":[0-9]+(?!,"cancelled"|[0-9])'"""
    " AND EXISTS (SELECT FROM step WHERE run_no = no AND status = 'failed'"
    """ AND position('"CANCELLED"' IN data) > 0)"""
)
_PAGE_BYTES = 1 << 20


migrations = partial(migrations_in, "runglass.store.postgres")
"""All migrations of this version, in order."""


async def migrate_postgres(
    connections: Connections,
    known: Sequence[Migration],
    *,
    migrates: bool = True,
    lock_ms: int = LOCK_MS,
    busy_s: float = 60.0,
) -> None:
    """Brings the database to the schema of the `known` migrations, and makes partitions.

    Says in the log what it does to a database that is not new; unless it `migrates`, raises UpgradeRequired
    instead. Safe while other processes do the same. Raises StoreError for a database of a version that is too
    new, where a process lives that a migration would break, where others keep a table for so long that in
    `busy_s` none gets it, and for a database that cannot hold any text.
    """
    encoding = await connections.read(lambda db: db.fetchval("SELECT current_setting('server_encoding')"))
    if encoding not in ENCODINGS:
        raise StoreError(
            f"the database {connections.name!r} has the encoding {encoding}, which lacks most characters;"
            " make it with ENCODING 'UTF8' TEMPLATE template0"
        )

    is_new = False
    said = 0

    async def next_one(db: Db) -> bool:
        """Applies one migration; False if there is none to apply."""
        nonlocal is_new, said
        await db.execute(f"SELECT pg_advisory_xact_lock({LOCK})", timeout=MIGRATION_S)
        # A role that may make no tables may not say IF NOT EXISTS either.
        if await db.fetchval("SELECT to_regclass('schema_migration')") is None:
            await db.execute(
                "CREATE TABLE schema_migration (number integer PRIMARY KEY, name text NOT NULL,"
                " breaks integer NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
            )
        rows = await db.fetch("SELECT number, breaks FROM schema_migration")
        _require_unbroken(rows, known[-1].number, connections.name)
        applied = {number for number, _ in rows}
        missing = [each for each in known if each.number not in applied]
        if not missing:
            return False
        is_new = is_new or not applied
        if not is_new and not migrates:
            raise _upgrade_required(connections.name, max(applied), known[-1].number)
        if missing[0].breaks and LEASES_TELL in applied:
            await _require_none_alive(db, connections.name, missing[0])
        if not is_new and said != missing[0].number:
            said = missing[0].number
            log.info("upgrading the database %r: migration %s", connections.name, missing[0].name)
        await db.execute(f"SET LOCAL lock_timeout = {lock_ms}; {missing[0].sql}", timeout=MIGRATION_S)
        if missing[0].number == DERIVED_ANEW:
            await _derive_anew(db)
        await db.execute(
            "INSERT INTO schema_migration (number, name, breaks) VALUES ($1, $2, $3)",
            *(missing[0].number, missing[0].name, missing[0].breaks),
        )
        return True

    async def transaction(db: Db) -> bool | None:
        """Whether there was one to apply; None where it did not get a table."""
        # Says itself what was done before, so it needs no mark, for which there may be no table yet.
        # A migration takes its time, whatever the role gives to statements.
        await db.execute("BEGIN; SET LOCAL statement_timeout = 0")
        try:
            is_one = await next_one(db)
        except asyncpg.LockNotAvailableError:
            await db.execute("ROLLBACK")
            return None
        except StoreError:
            # Else the driver complains of the transaction, before the reason is told.
            await db.execute("ROLLBACK")
            raise
        await db.execute("COMMIT")
        return is_one

    began_s = time.monotonic()
    while (is_one := await connections.repeat(transaction)) is not False:
        if is_one:
            began_s = time.monotonic()
        elif time.monotonic() - began_s < busy_s:
            await asyncio.sleep(BUSY_PAUSE_S)
        else:
            raise StoreError(
                f"the database {connections.name!r} cannot be migrated: for {busy_s:g} s others have used its"
                " tables without a pause; nothing is half done, so end long transactions, such as that of"
                " pg_dump, and try it again"
            )
    await make_months(connections, months_ahead())


async def require_upgraded(db: Db, database: str) -> None:
    """Raises UpgradeRequired for a database of an older version, StoreError for one without the tables.

    Also for one of a version that is too new.
    """
    if await db.fetchval("SELECT to_regclass('schema_migration')") is None:
        raise StoreError(
            f"the database {database!r} has no tables of Runglass; `runglass migrate` makes them"
        )
    applied, known = await db.fetch("SELECT number, breaks FROM schema_migration"), migrations()
    _require_unbroken(applied, known[-1].number, database)
    if {each.number for each in known} - {number for number, _ in applied}:
        newest = max((number for number, _ in applied), default=0)
        raise _upgrade_required(database, newest, known[-1].number)


def _upgrade_required(database: str, schema: int, needed: int) -> UpgradeRequired:
    return UpgradeRequired(
        f"the database {database!r} has schema {schema} of an older version, this one needs {needed};"
        " copy it, then run `runglass migrate`"
    )


async def _derive_anew(db: Db) -> None:
    """Gives runs whose cancelled attempts were not counted the summaries that their logs add up to."""
    anew = []
    for run_no, summary in await db.fetch(_UNCOUNTED, timeout=MIGRATION_S):
        folded, seq = FoldedSummary(), 0
        while events := await page(db, EVENTS, run_no, (seq,), limit_bytes=_PAGE_BYTES):
            seq = events[-1][0]
            for _, event in events:
                folded.step(summary, event)
        anew.append((folded.finalize(), run_no, summary))
    # Last, since others who write to these runs wait until the commit, and where none has written meanwhile.
    await db.executemany("UPDATE run SET summary = $1 WHERE no = $2 AND summary = $3", anew)


async def await_migration(db: Db, knows: int, database: str) -> None:
    """Returns when no migration that breaks programs goes on, nor begins in this transaction.

    Raises StoreError where one has broken the program that `knows` the migrations up to this number: since
    its process opened the database, no lease said that it lives.
    """
    await db.execute(f"SELECT pg_advisory_xact_lock_shared({LEASES_LOCK})", timeout=MIGRATION_S)
    _require_unbroken(await db.fetch("SELECT number, breaks FROM schema_migration"), knows, database)


def _require_unbroken(applied: Sequence[Any], knows: int, database: str) -> None:
    if max((breaks for _, breaks in applied), default=0) >= knows:
        newest = max(number for number, _ in applied)
        raise StoreError(
            f"the database {database!r} has schema {newest}, which this version of Runglass, of"
            f" schema {knows}, cannot work with; use the version that wrote it, or a newer one"
        )


async def _require_none_alive(db: Db, database: str, migration: Migration) -> None:
    """Raises StoreError where processes hold a lease whose programs the migration would break.

    Until the end of the transaction none takes a lease, or has one again that ran out.
    """
    await db.execute(f"SELECT pg_advisory_xact_lock({LEASES_LOCK})", timeout=MIGRATION_S)
    # A process that only stood still would renew it.
    gone = "DELETE FROM lease WHERE knows_migration <= $1 AND expires_at <= now()"
    await db.execute(gone, migration.breaks)
    sql = "SELECT host, pid, version FROM lease WHERE knows_migration <= $1 AND expires_at > now()"
    alive = [
        # Programs from before migration 9 did not tell who they are.
        f"{pid} on {host}, version {version}" if host else "an unnamed one"
        for host, pid, version in await db.fetch(f"{sql} ORDER BY host DESC", migration.breaks)
    ]
    if alive:
        raise StoreError(
            f"the database {database!r} cannot have schema {migration.number} yet, with which the programs of"
            f" these processes cannot work: {'; '.join(alive)}. Stop them first"
        )


def months_ahead() -> FailureLog:
    """Tells where the partitions of months ahead cannot be made."""
    return FailureLog(log, "making the partitions of the months ahead failed")


async def make_months(connections: Connections, ahead: FailureLog) -> None:
    """Makes the partitions of this month and of those ahead, where they are missing.

    Where the role may make no tables, `ahead` is told of those that are missing. Raises StoreError where this
    month is among them.
    """
    refused: StoreError | None = None
    for months in (MONTHS_AHEAD, 0):
        try:
            await connections.write(partial(_make_months, ahead=months))
        except StoreError as error:
            if not isinstance(error.__cause__, asyncpg.InsufficientPrivilegeError):
                raise
            refused = StoreError(
                f"the role may make no tables in {connections.name!r} ({error.__cause__}); let their owner"
                " run `runglass migrate`"
            )
        else:
            if refused is None:
                ahead.worked()
            else:
                ahead.failed(refused)
            return
    raise StoreError(f"this month has no partitions yet: {refused}") from refused


async def _make_months(db: Db, *, ahead: int) -> None:
    await db.execute(f"SELECT pg_advisory_xact_lock({LOCK})", timeout=MIGRATION_S)
    await db.execute(f"SELECT make_months({ahead})")
