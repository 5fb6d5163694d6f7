"""Numbered SQL files to database schema: `sql/0001_initial.sql`, `sql/0002_….sql`, …

A database remembers the number of its last migration and gets the missing ones, each in a transaction of its
own. A database from a newer version is refused, never guessed at.
"""

import sqlite3
from decimal import Decimal
from importlib.resources import files
from typing import NamedTuple

from runglass.errors import StoreError
from runglass.money import format_usd


class Migration(NamedTuple):
    number: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """All migrations of this version, in order."""
    found = [
        Migration(int(file.name[:4]), file.name, file.read_text(encoding="utf-8"))
        for file in files("runglass.store.sqlite").joinpath("sql").iterdir()
        if file.name[:4].isdigit() and file.name.endswith(".sql")
    ]
    return sorted(found)


def migrate_sqlite(connection: sqlite3.Connection) -> None:
    """Brings the database to this version's schema. The connection must be in autocommit mode.

    Safe while another process does the same. Raises StoreError for a database of a newer version.
    """
    known = migrations()
    add_functions(connection)
    for migration in known:
        if _version(connection) >= migration.number:
            continue
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Asked again under the lock: another process may have been faster.
            if _version(connection) < migration.number:
                for statement in _statements(migration.sql):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {migration.number}")
            connection.execute("COMMIT")
        except BaseException:
            # A disk that fails may have made SQLite roll back by itself.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    if _version(connection) > known[-1].number:
        raise StoreError(
            f"the database has schema {_version(connection)}, this version of Runglass knows"
            f" {known[-1].number}; use the version that wrote it, or a newer one"
        )


def add_functions(connection: sqlite3.Connection) -> None:
    """Gives the connection the functions that migrations call."""
    connection.create_function("plain_usd", 1, _plain_usd, deterministic=True)


def _plain_usd(amount: str | None) -> str | None:
    return None if amount is None else format_usd(Decimal(amount))


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> list[str]:
    # executescript() would commit the transaction that it is called in.
    statements, current = [], ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements
