"""Migrations: a fresh database, an upgraded one, one from the future."""

import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runglass.errors import StoreError
from runglass.store.migrate import migrate_sqlite, migrations


def schema(database: sqlite3.Connection) -> list[tuple[str, str]]:
    rows = database.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
    return [(name, " ".join(sql.split())) for name, sql in rows]


def test_migrations_are_numbered_from_one_without_gaps() -> None:
    assert [migration.number for migration in migrations()] == list(range(1, len(migrations()) + 1))


def test_migrations_add_up_to_the_schema() -> None:
    """The whole text of all files, run as one script, gives what stepwise migration gives."""
    with closing(sqlite3.connect(":memory:")) as whole, closing(sqlite3.connect(":memory:")) as stepwise:
        whole.executescript("".join(migration.sql for migration in migrations()))
        stepwise.isolation_level = None
        migrate_sqlite(stepwise)
        assert schema(stepwise) == schema(whole)
        assert len(schema(stepwise)) > 10


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as database:
        migrate_sqlite(database)
        database.execute("INSERT INTO project (org, name) VALUES ('a', 'b')")
        migrate_sqlite(database)
        assert database.execute("SELECT count(*) FROM project").fetchone() == (1,)


def test_a_database_of_a_newer_version_is_refused() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        migrate_sqlite(database)
        database.execute("PRAGMA user_version = 999")
        with pytest.raises(StoreError, match="schema 999"):
            migrate_sqlite(database)


def test_two_processes_may_migrate_at_once(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def migrate() -> None:
        try:
            with closing(sqlite3.connect(tmp_path / "db", isolation_level=None, timeout=30)) as database:
                migrate_sqlite(database)
        except BaseException as failure:
            failures.append(failure)
            raise

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_requests_and_outcomes_move_out_of_the_runs_row() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        for migration in migrations()[:2]:
            database.executescript(migration.sql)
        database.execute("PRAGMA user_version = 2")
        database.executemany(
            "INSERT INTO run (no, id, project_id, flow_id, version, status, trigger_type, capture, summary,"
            " request, result, error) VALUES (?, ?, 1, 'f', 0, ?, 'api', 'off', x'00', ?, ?, ?)",
            [
                (1, "lives", "running", b"asked", None, None),
                (2, "good", "completed", None, b"result", None),
                (3, "bad", "failed", None, None, b"error"),
            ],
        )
        migrate_sqlite(database)
        assert database.execute("SELECT * FROM run_request").fetchall() == [(1, b"asked")]
        outcomes = database.execute(
            "SELECT run_no, result, error FROM run_outcome ORDER BY run_no"
        ).fetchall()
        assert outcomes == [(2, b"result", None), (3, None, b"error")]
        assert [row[0] for row in database.execute("SELECT id FROM run ORDER BY no")] == [
            "lives",
            "good",
            "bad",
        ]


def test_answers_of_calls_get_a_table_of_their_own_and_time_from_now() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        for migration in migrations():
            if migration.number < 7:
                database.executescript(migration.sql)
        database.execute("PRAGMA user_version = 6")
        database.execute(
            "INSERT INTO run (no, id, project_id, flow_id, version, status, trigger_type, capture, summary)"
            " VALUES (5, 'r', 1, 'f', 0, 'completed', 'api', 'off', x'00')"
        )
        database.execute("INSERT INTO run_outcome VALUES (5, x'01', NULL)")
        columns = "project_id, key, digest, run_id, created_at, head, status, answer"
        for key, status, answer in (("answered", 200, b"{}"), ("begun", None, None)):
            row = (1, key, b"digest", "r", "2026", 3, status, answer)
            database.execute(f"INSERT INTO call ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        migrate_sqlite(database)
        assert database.execute("SELECT key, run_no, answer FROM call_answer").fetchall() == [
            ("answered", 5, b"{}")
        ]
        calls = database.execute("SELECT key, digest, run_id, head, status FROM call ORDER BY key").fetchall()
        assert calls == [("answered", b"digest", "r", 3, 200), ("begun", b"digest", "r", 3, None)]
        ((ended_at,),) = database.execute("SELECT ended_at FROM run_outcome").fetchall()
        now = datetime.now(UTC)
        assert now - timedelta(minutes=1) < datetime.fromisoformat(ended_at) <= now + timedelta(seconds=1)
