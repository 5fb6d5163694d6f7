"""Migrations: a fresh database, an upgraded one, one from the future."""

import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from runglass.errors import StoreError
from runglass.log.events import RunStarted, encode_event
from runglass.log.trace import RunSummary, RunTotals
from runglass.store.sqlite.migrations import add_functions, migrate_sqlite, migrations


def schema(database: sqlite3.Connection) -> list[tuple[str, str]]:
    rows = database.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
    return [(name, " ".join(sql.split())) for name, sql in rows]


def test_migrations_are_numbered_from_one_without_gaps() -> None:
    assert [migration.number for migration in migrations()] == list(range(1, len(migrations()) + 1))


def test_migrations_add_up_to_the_schema() -> None:
    """The whole text of all files, run as one script, gives what stepwise migration gives."""
    with closing(sqlite3.connect(":memory:")) as whole, closing(sqlite3.connect(":memory:")) as stepwise:
        add_functions(whole)
        whole.executescript("".join(migration.sql for migration in migrations()))
        stepwise.isolation_level = None
        migrate_sqlite(stepwise)
        assert schema(stepwise) == schema(whole)
        assert len(schema(stepwise)) > 10


def test_a_new_database_whose_creation_is_cut_off_has_nothing_in_it() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:

        def cut_off(action: int, table: str | None, *_: object) -> int:
            return sqlite3.SQLITE_DENY if (action, table) == (sqlite3.SQLITE_CREATE_TABLE, "audit") else 0

        database.set_authorizer(cut_off)
        with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
            migrate_sqlite(database)
        database.set_authorizer(None)
        assert schema(database) == []
        assert database.execute("PRAGMA user_version").fetchone() == (0,)


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


def migrate_to(database: sqlite3.Connection, number: int) -> None:
    """Makes the database one of the version whose last migration has this number."""
    add_functions(database)
    for migration in migrations()[:number]:
        database.executescript(migration.sql)
    database.execute(f"PRAGMA user_version = {number}")


def test_money_becomes_exact_decimals_and_totals_a_part_of_the_summary() -> None:
    totals = (
        b'{"completed":2,"failed":0,"retried":1,"skipped":0,"tokens":null,"cost_usd":"7.5E-7",'
        b'"unpriced_calls":1}'
    )
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        migrate_to(database, 4)
        database.execute("INSERT INTO project (org, name, budget_pico, spent_pico) VALUES ('a', 'b', 5, 1)")
        database.execute("INSERT INTO project (org, name, spent_pico) VALUES ('a', 'c', 9000000000000000001)")
        database.execute("INSERT INTO flow VALUES ('f', 1, 'greet', NULL, NULL, NULL, '')")
        database.executemany(
            "INSERT INTO run (no, id, project_id, flow_id, version, status, trigger_type, capture, summary,"
            " totals) VALUES (?, ?, 1, 'f', 3, 'completed', 'api', 'off', ?, ?)",
            [
                (1, "paid", b'{"id":"paid","flowId":"f","status":"completed"}', totals),
                (2, "new", b'{"id":"new","flowId":"f","status":"pending"}', None),
                (3, "odd", b"\x00", b"\x00"),
            ],
        )
        migrate_sqlite(database)
        money = database.execute("SELECT budget_usd, spent_usd FROM project ORDER BY id").fetchall()
        found = [row[0] for row in database.execute("SELECT summary FROM run ORDER BY no")]
    assert money == [("0.000000000005", "0.000000000001"), (None, "9000000.000000000001")]
    paid, new = (msgspec.json.decode(summary, type=RunSummary) for summary in found[:2])
    assert paid.totals == RunTotals(completed=2, retried=1, cost_usd="0.00000075", unpriced_calls=1)
    assert (paid.flow_slug, paid.version, new.totals) == ("greet", 3, RunTotals())
    assert b"null" not in found[0]
    assert found[2] == b"\x00", "what cannot be read stays as it is"


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
        migrate_to(database, 6)
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


def test_large_rows_move_to_tables_with_rowids() -> None:
    rows: dict[str, list[tuple[str | int | bytes, ...]]] = {
        "flow_version": [("f", 0, b"draft", "then"), ("f", 1, b"first", "then")],
        "checkpoint": [(1, "a", "", b"one"), (1, "a", "0", b"two"), (2, "a", "", b"three")],
        "owed": [(1, 4, b"four"), (2, 1, b"one")],
    }
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        migrate_to(database, 12)
        for table, values in rows.items():
            database.executemany(f"INSERT INTO {table} VALUES ({marks_of(values[0])})", values)
        migrate_sqlite(database)
        for table, values in rows.items():
            columns = {
                "flow_version": "flow_id, version, source, created_at",
                "checkpoint": "run_no, step_id, loop_path, data",
            }.get(table, "*")
            found = database.execute(f"SELECT {columns} FROM {table} ORDER BY 1, 2, 3").fetchall()
            assert found == values
            whole = database.execute(f"SELECT * FROM {table} LIMIT 1").fetchone()
            with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
                database.execute(f"INSERT INTO {table} VALUES ({marks_of(whole)})", whole)


def test_older_checkpoints_are_those_that_going_back_makes_void() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        migrate_to(database, 13)
        database.execute("INSERT INTO checkpoint VALUES (1, 'a', '0', x'01')")
        migrate_sqlite(database)
        assert database.execute("SELECT * FROM checkpoint").fetchall() == [(1, "a", "0", 0, b"\x01")]


def test_what_is_kept_for_calls_is_counted_from_then_on() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        migrate_to(database, 12)
        database.execute("INSERT INTO project (org, name, data_bytes) VALUES ('a', 'b', 30)")
        database.execute("INSERT INTO flow VALUES ('f', 1, 'greet', NULL, NULL, NULL, '', NULL, NULL)")
        runs = [(7, "one", 10), (8, "two", 20)]
        database.executemany(
            "INSERT INTO run (no, id, project_id, flow_id, version, status, trigger_type, capture, summary,"
            " open_bytes) VALUES (?, ?, 1, 'f', 3, 'completed', 'api', 'off', x'00', ?)",
            runs,
        )
        database.execute("INSERT INTO owed VALUES (8, 1, x'010203')")
        database.execute("INSERT INTO call_answer VALUES (8, 1, 'key', 7, 'then', x'0102030405')")
        migrate_sqlite(database)
        assert database.execute("SELECT no, open_bytes FROM run ORDER BY no").fetchall() == [(7, 15), (8, 23)]
        assert database.execute("SELECT data_bytes FROM project").fetchone() == (38,)


def marks_of(row: tuple[object, ...]) -> str:
    return ", ".join("?" * len(row))


def test_what_ended_runs_add_up_to_is_taken_from_their_summaries() -> None:
    told = (
        b'{"durationMs":842,"startedAt":"2026-01-01T00:00:00.000Z",'
        b'"totals":{"costUsd":"0.0031755","tokens":{"total":8600}}}'
    )
    runs = [
        (1, "paid", "completed", told, "2026"),
        (2, "free", "failed", b'{"durationMs":3,"totals":{}}', "2026"),
        (3, "odd", "completed", b"\x00", "2026"),
        (4, "live", "running", told, None),
    ]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        migrate_to(database, 14)
        database.execute("INSERT INTO project (org, name) VALUES ('a', 'b')")
        database.executemany(
            "INSERT INTO run (no, id, project_id, flow_id, version, status, trigger_type, capture, summary,"
            " ended_at) VALUES (?, ?, 1, 'f', 0, ?, 'api', 'off', ?, ?)",
            [(no, run_id, status, summary, ended) for no, run_id, status, summary, ended in runs],
        )
        migrate_sqlite(database)
        sql = "SELECT id, duration_ms, cost_usd, tokens, change_no FROM run ORDER BY no"
        assert database.execute(sql).fetchall() == [
            ("paid", 842, 0.0031755, 8600, 0),
            ("free", 3, None, None, 0),
            ("odd", None, None, None, 0),
            ("live", None, None, None, 0),
        ]
        assert database.execute("SELECT run_changes FROM project").fetchone() == (0,)


def test_the_outlines_of_large_runs_that_ended_before_are_due() -> None:
    runs = [("large", 20_000, "2026"), ("small", 19_999, "2026"), ("live", 50_000, None)]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        migrate_to(database, 17)
        database.executemany(
            "INSERT INTO run (no, id, project_id, flow_id, version, status, trigger_type, capture, summary,"
            " head, ended_at) VALUES (?, ?, 1, 'f', 0, 'completed', 'api', 'off', x'00', ?, ?)",
            [(no, *run) for no, run in enumerate(runs, 1)],
        )
        migrate_sqlite(database)
        assert database.execute("SELECT run_no FROM due_outline").fetchall() == [(1,)]


def test_outlines_that_were_kept_with_fewer_columns_are_due_again() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        migrate_to(database, 20)
        kept = [(1, 0, b"head"), (1, 1, b"rows"), (2, 1, b"rows of one that is not whole")]
        database.executemany("INSERT INTO kept_outline (run_no, part, data) VALUES (?, ?, ?)", kept)
        migrate_sqlite(database)
        assert database.execute("SELECT run_no FROM due_outline").fetchall() == [(1,)]


def test_what_cannot_be_read_is_kept_where_runs_are_folded_anew() -> None:
    started = encode_event(
        RunStarted(execution_id="r", run_id="r", flow_id="f", step_count=1, trigger_type="api", version=0)
    )
    summaries = [b'{"id":"r","error":null}', b'{"id":"broken log"}', b"[]", b'{"id":"no log"}']
    events = [(1, 1, started), (2, 1, started), (2, 2, b"\xff"), (3, 1, started)]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        migrate_to(database, 14)
        database.executemany(
            "INSERT INTO run (no, id, project_id, flow_id, version, status, trigger_type, capture, head,"
            " summary) VALUES (?1, ?1, 1, 'f', 0, 'running', 'api', 'off', 2, ?2)",
            enumerate(summaries, 1),
        )
        database.executemany("INSERT INTO event (run_no, seq, data) VALUES (?, ?, ?)", events)
        database.execute("INSERT INTO step VALUES (1, 1, 'a', '', 1, 'running', ?)", (b":null, no JSON",))
        migrate_sqlite(database)
        folded, *others = (row[0] for row in database.execute("SELECT summary FROM run ORDER BY no"))
        assert database.execute("SELECT data FROM step").fetchall() == [(b":null, no JSON",)]
    summary = msgspec.json.decode(folded, type=RunSummary)
    assert (summary.status, summary.step_count, summary.totals) == ("running", 1, RunTotals())
    assert [msgspec.json.format(other, indent=-1) for other in others] == summaries[1:]


def test_errors_of_runs_from_before_are_found_and_one_that_is_no_json_keeps_none_from_it() -> None:
    summaries = {
        "failed": b'{"error":{"code":"X","message":"No Sesame"}}',
        "cancelled": b'{"error":{"code":"CANCELLED"}}',
        "completed": b'{"error":{"code":"X"}}',
    }
    runs = [*summaries.items(), ("failed", b"\x00 no JSON"), ("failed", b"{}")]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        migrate_to(database, 25)
        database.executemany(
            "INSERT INTO run (no, id, project_id, flow_id, version, status, trigger_type, capture, summary)"
            " VALUES (?1, ?1, 1, 'f', 0, ?2, 'api', 'off', ?3)",
            [(no, *run) for no, run in enumerate(runs, 1)],
        )
        migrate_sqlite(database)
        found = database.execute("SELECT run_no, error FROM run_error ORDER BY run_no").fetchall()
    assert found == [(1, "x no sesame"), (2, "cancelled ")]


def test_runs_that_wait_take_turns_between_their_projects_once_they_have_places() -> None:
    runs = [
        (1, 1, "pending", None, -1),
        (2, 1, "running", None, -1),
        (3, 1, "running", "gone", -1),
        (4, 1, "completed", None, -1),
        (5, 2, "paused", None, 7),
        (6, 2, "paused", None, 3),
        (7, 2, "pending", None, -1),
    ]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        migrate_to(database, 25)
        database.execute("INSERT INTO project (org, name) VALUES ('a', 'b'), ('a', 'c')")
        database.executemany(
            "INSERT INTO run (no, id, project_id, flow_id, version, status, trigger_type, capture, summary,"
            " head, owner, resume_head) VALUES (?1, ?1, ?2, 'f', 0, ?3, 'api', 'off', x'', 7, ?4, ?5)",
            runs,
        )
        migrate_sqlite(database)
        sql = "SELECT run_no FROM queue ORDER BY pick, run_no"
        assert database.execute(sql).fetchall() == [(1,), (5,), (2,), (7,)]
        for no, project_id in ((8, 1), (9, 2)):
            database.execute("INSERT INTO queue (run_no, project_id) VALUES (?, ?)", (no, project_id))
        assert database.execute(sql).fetchall()[4:] == [(8,), (9,)]
