"""Migrations of SQLite: a fresh database, one from the future, two processes; the text of PostgreSQL's."""

import re
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from runglass.errors import StoreError
from runglass.store.migration_files import Migration
from runglass.store.postgres.migrations import migrations as postgres_migrations
from runglass.store.sqlite import connections
from runglass.store.sqlite.migrations import migrate_sqlite, migrations
from runglass.store.sqlite.store import SqliteStore


def test_migrations_are_numbered_from_one_without_gaps() -> None:
    assert [migration.number for migration in migrations()] == list(range(1, len(migrations()) + 1))


@pytest.mark.parametrize("said", ["not authorized", "interrupted"])
def test_a_new_database_whose_creation_is_cut_off_has_nothing_in_it(said: str) -> None:
    def cut_off(action: int, table: str | None, *_: object) -> int:
        return sqlite3.SQLITE_DENY if (action, table) == (sqlite3.SQLITE_CREATE_TABLE, "audit") else 0

    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        if said == "interrupted":
            # SQLite rolls back by itself then, as where a disk fails.
            database.set_progress_handler(lambda: 1, 1000)
        database.set_authorizer(cut_off)
        with pytest.raises(sqlite3.DatabaseError, match=said):
            migrate_sqlite(database)
        database.set_authorizer(None)
        database.set_progress_handler(None, 0)
        assert database.execute("SELECT name FROM sqlite_schema").fetchall() == []
        assert database.execute("PRAGMA user_version").fetchone() == (0,)


def test_a_database_of_a_newer_version_is_refused() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        migrate_sqlite(database)
        database.execute("PRAGMA user_version = 999")
        with pytest.raises(StoreError, match="schema 999"):
            migrate_sqlite(database)


def test_two_processes_may_migrate_at_once(tmp_path: Path) -> None:
    def migrate(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as database:
            migrate_sqlite(database)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(migrate, [tmp_path / "db"] * 4)) == [None] * 4


PRAGMAS = ("auto_vacuum", "encoding", "journal_mode", "page_size", "user_version")


def content(path: Path) -> tuple[list[str], list[Any]]:
    """Everything that is in the file, and what it says of itself."""
    with closing(sqlite3.connect(path)) as database:
        about = [database.execute(f"PRAGMA {name}").fetchone()[0] for name in PRAGMAS]
        return list(database.iterdump()), about


async def test_a_copied_schema_is_the_migrated_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert vars(connections)["migrate_sqlite"] is not migrate_sqlite, "schemas are copied here"
    async with SqliteStore(tmp_path / "copied"):
        pass
    monkeypatch.setattr(connections, "migrate_sqlite", migrate_sqlite)
    async with SqliteStore(tmp_path / "migrated"):
        pass
    assert content(tmp_path / "copied") == content(tmp_path / "migrated")
    assert len(content(tmp_path / "copied")[0]) > 10


FORBIDDEN = {
    r"DROP (TABLE|COLUMN|FUNCTION|SEQUENCE|TYPE|TRIGGER)": "takes away what these programs use",
    r"\bRENAME\b": "takes away a name that these programs use",
    r"ALTER COLUMN \S+ (SET DATA )?TYPE": "rewrites a table, and gives these programs values of another kind",
    r"ALTER COLUMN \S+ SET NOT NULL": "reads a whole table under a lock, and refuses rows of these programs",
    r"ADD COLUMN (?!.*\bDEFAULT\b).*\bNOT NULL\b": "refuses rows of these programs, which do not fill it",
    r"ADD COLUMN .*\bDEFAULT (random|clock_timestamp|gen_random_uuid)": "rewrites a table under a lock",
    r"ADD (CONSTRAINT|CHECK|UNIQUE|PRIMARY|FOREIGN)": "refuses what these programs write",
    r"^(TRUNCATE|LOCK)\b": "keeps these programs from a whole table",
    r"^(UPDATE|DELETE FROM) (run|event|step|step_attempt|checkpoint)\b": "locks the rows of all runs",
}
NEW_TABLE = re.compile(r"^CREATE TABLE (?:IF NOT EXISTS )?(\w+)", re.I)
INDEX = re.compile(r"^CREATE (?:UNIQUE )?INDEX .*?\bON (\w+)", re.I)
FUNCTION = re.compile(r"^CREATE (OR REPLACE )?FUNCTION (\w+) ?\((.*?)\) RETURNS", re.I)
# These have come, and what they do was looked at: the queue and the leases have few rows, and a trigger fills
# `pick` for programs that do not.
ALLOWED = {
    ("0006_queue_order.sql", "ALTER TABLE queue ALTER COLUMN pick SET NOT NULL"),
    ("0006_queue_order.sql", "CREATE INDEX queue_by_project ON queue (project_id, pick, run_no)"),
    ("0006_queue_order.sql", "CREATE INDEX queue_by_pick ON queue (pick, run_no)"),
    # Reads all runs, and has few to sort: those that go on.
    ("0006_queue_order.sql", "CREATE INDEX run_owned_of_project ON run (project_id) WHERE owner IS NOT NULL"),
}


def statements(sql: str) -> Iterator[str]:
    """Each in one line, without comments; bodies of functions are left out."""
    plain = re.sub(r"--.*", "", re.sub(r"\$\$.*?\$\$", "''", sql, flags=re.S))
    yield from filter(None, (" ".join(each.split()) for each in plain.split(";")))


def functions(before: list[Migration]) -> dict[str, str]:
    """The parameters of each function that there is by then."""
    found = (FUNCTION.match(each) for migration in before for each in statements(migration.sql))
    return {match[2]: match[3] for match in found if match}


def faults(migration: Migration, before: list[Migration]) -> list[str]:
    """What of it does not go well beside programs of the version before."""
    found, made, there = [], set[str](), functions(before)
    for each in statements(migration.sql):
        if (migration.name, each) in ALLOWED:
            continue
        if table := NEW_TABLE.match(each):
            made.add(table[1])
        if (index := INDEX.match(each)) and index[1] not in made:
            found.append(f"{each}: keeps writers from a table while the index is made")
        if (function := FUNCTION.match(each)) and there.get(function[2], function[3]) != function[3]:
            found.append(f"{each}: these programs call it with other values; a new one takes a new name")
        found += [f"{each}: {why}" for what, why in FORBIDDEN.items() if re.search(what, each, re.I)]
    return found


@pytest.mark.parametrize("number", range(2, len(postgres_migrations()) + 1))
def test_a_migration_of_postgresql_lets_programs_of_the_version_before_go_on(number: int) -> None:
    """As far as a look at its text can find; `make prove ARGS="rolling --from COMMIT"` has the programs."""
    *before, migration = postgres_migrations()[:number]
    if not migration.breaks:
        assert faults(migration, before) == []
