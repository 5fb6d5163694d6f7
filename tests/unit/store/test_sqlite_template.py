"""The stores of tests, whose schema is copied, are as those that were migrated."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from runglass.store.sqlite import connections
from runglass.store.sqlite.migrations import migrate_sqlite
from runglass.store.sqlite.store import SqliteStore

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
