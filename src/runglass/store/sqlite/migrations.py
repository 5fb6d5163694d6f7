"""Numbered SQL files to database schema: `sql/0001_initial.sql`, `sql/0002_….sql`, …

A database remembers the number of its last migration and gets the missing ones in one transaction: after a
crash a new one is empty or whole, and an older one as it was. A database of a newer version is refused.
"""

import sqlite3
from decimal import Decimal
from functools import partial
from pathlib import Path

from runglass.errors import StoreError, UpgradeRequired
from runglass.log.money import format_usd
from runglass.store.migration_files import FoldedSummary, migrations_in, without_nulls

migrations = partial(migrations_in, "runglass.store.sqlite")
"""All migrations of this version, in order."""


def migrate_sqlite(connection: sqlite3.Connection) -> None:
    """Brings the database to this version's schema. The connection must be in autocommit mode.

    Safe while another process does the same. Raises StoreError for a database of a newer version.
    """
    known = migrations()
    add_functions(connection)
    if schema_of(connection) < known[-1].number:
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Asked again under the lock: another process may have been faster.
            schema = schema_of(connection)
            for migration in known:
                if schema < migration.number:
                    for statement in _statements(migration.sql):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {migration.number}")
            connection.execute("COMMIT")
        except BaseException:
            # A disk that fails may have made SQLite roll back by itself.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    if schema_of(connection) > known[-1].number:
        raise StoreError(
            f"the database has schema {schema_of(connection)}, this version of Runglass knows"
            f" {known[-1].number}; use the version that wrote it, or a newer one"
        )


def schema_of(connection: sqlite3.Connection) -> int:
    """The number of the database's last migration; 0 where it is new."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def require_upgraded(connection: sqlite3.Connection, path: Path) -> None:
    """Raises UpgradeRequired for a database of an older version; a new one has nothing to upgrade."""
    schema, newest = schema_of(connection), migrations()[-1].number
    if 0 < schema < newest:
        raise UpgradeRequired(
            f"the database {str(path)!r} has schema {schema} of an older version, this one needs {newest};"
            f" stop its server, then run `runglass migrate --store sqlite:///{path}`, which copies it first"
        )


def add_functions(connection: sqlite3.Connection) -> None:
    """Gives the connection the functions that migrations call."""
    connection.create_function(
        "plain_usd", 1, lambda usd: usd and format_usd(Decimal(usd)), deterministic=True
    )
    connection.create_function("without_nulls", 1, without_nulls, deterministic=True)
    connection.create_aggregate("folded_summary", 2, FoldedSummary)  # type: ignore[arg-type]


def _statements(script: str) -> list[str]:
    # executescript() would commit the transaction that it is called in.
    statements, current = [], ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements
