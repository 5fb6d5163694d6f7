"""Whether a PostgreSQL is consistent: what its catalog says, then what is checked of all stores.

It only reads, so a standby can be checked, and a copy that was restored. The files below are the server's:
its checksums and `pg_amcheck` tell of those.
"""

from collections.abc import Callable
from typing import Any

import asyncpg

from runglass.errors import StoreError
from runglass.store.integrity import USUAL, Checked, CheckLimits, IntegrityCheck, Kind
from runglass.store.postgres.append_rows import RunFacts
from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.migrations import require_upgraded
from runglass.store.postgres.sql_helpers import POSTGRES, page, perform

STATEMENT_S = 600.0
"""One statement may take as long: it goes through the rows of some thousand runs."""
DAMAGED = (
    asyncpg.DataCorruptedError,
    asyncpg.IndexCorruptedError,
    asyncpg.PostgresIOError,
    asyncpg.UndefinedFileError,
)
"""What the server says where it cannot read its own files."""

_ADDED = "user=", "tag="
"""What is not in `models` where the version before this one has written the row."""


def _columns_of(summary: bytes) -> dict[str, tuple[Any, ...]]:
    columns = RunFacts.of(summary).columns
    older = [name for name in columns["models"] or () if not name.startswith(_ADDED)]
    return {name: (value,) for name, value in columns.items()} | {
        "models": (columns["models"], older or None)
    }


KIND = Kind(
    sql=POSTGRES,
    page=page,
    errors="SELECT coalesce(run.id, run_error.id) FROM run FULL JOIN run_error ON run_no = no"
    " WHERE run.error IS DISTINCT FROM run_error.error",
    columns_of=_columns_of,
)

# Tables are where `run` is found: a schema that bears the name of the role comes before it, and may be empty.
_SCHEMA = "(SELECT relnamespace FROM pg_class WHERE oid = to_regclass('run'))"
_CATALOG = (
    "SELECT format('the index %s is not valid: REINDEX it', indexrelid::regclass) FROM pg_index"
    f" JOIN pg_class ON oid = indexrelid WHERE relnamespace = {_SCHEMA} AND NOT (indisvalid AND indisready)",
    "SELECT format('the constraint %s of table %s is not validated', conname, conrelid::regclass)"
    f" FROM pg_constraint WHERE connamespace = {_SCHEMA} AND NOT convalidated",
    "SELECT format('the trigger %s of table %s is disabled', tgname, tgrelid::regclass) FROM pg_trigger"
    f" JOIN pg_class ON pg_class.oid = tgrelid WHERE relnamespace = {_SCHEMA} AND tgenabled <> 'O'",
    "SELECT format('table %s has no partition %s', parent, part) FROM (SELECT parent,"
    " format('%s_%s_%s', parent, 2020 + month / 12, lpad((month % 12 + 1)::text, 2, '0')) AS part"
    " FROM (SELECT month_of(now()) AS month UNION SELECT no >> 40 FROM run) AS months"
    " CROSS JOIN unnest(ARRAY['event', 'step', 'step_attempt']) AS parent) AS parts"
    " WHERE NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = to_regclass(parent)"
    " AND inhrelid = to_regclass(part)) ORDER BY 1",
    # The high bits of a number are its month.
    "SELECT 'the sequence run_number is behind the numbers of runs, and would give them again'"
    f" WHERE (SELECT last_value FROM run_number) < (SELECT max(no & {(1 << 40) - 1}) FROM run)",
)
"""What is wrong by the catalog, in one sentence a row."""


async def check(
    address: str, *, every_run: bool, tell: Callable[[int, int], None], patience_s: float = 5.0
) -> Checked:
    """Checks the database as of one moment; others may go on. Folds every run, or a sample.

    Raises StoreError, and UpgradeRequired for a database of an older version.
    """
    connections = Connections(address, patience_s=patience_s, statement_s=STATEMENT_S)

    async def work(db: Db) -> Checked:
        # The role may give less to its statements, and to the pauses between them, in which logs are folded.
        await db.execute("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0")
        await require_upgraded(db, connections.name)
        return await check_on(db, every_run=every_run, tell=tell)

    await connections.open()
    try:
        return await connections.read_at_one_moment(work)
    except StoreError as error:
        if not isinstance(error.__cause__, DAMAGED):
            raise
        # Further mistakes in a damaged database say nothing.
        return Checked(0, 0, [f"the database is damaged: {error.__cause__}"])
    finally:
        await connections.close()


async def check_on(
    db: Db, *, every_run: bool, tell: Callable[[int, int], None], limits: CheckLimits = USUAL
) -> Checked:
    """`check`, on a connection with a transaction that sees one moment."""
    told = [str(row[0]) for sql in _CATALOG for row in await db.fetch(sql)]
    found = await perform(IntegrityCheck(KIND, every_run=every_run, tell=tell, limits=limits).work, db)
    return found._replace(problems=[*told, *found.problems])
