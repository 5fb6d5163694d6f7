"""What removal means in an SQLite file: every table, no scans, bites beside appends, bytes that are gone."""

import sqlite3
from contextlib import closing
from pathlib import Path

from runglass.store.records import RunRecord, StepRow
from runglass.store.run_tables import ROWS_OF_RUN
from runglass.store.sqlite.migrations import migrate_sqlite
from runglass.store.sqlite.store import SqliteStore
from tests.conformance.stores import batch, make_run
from tests.unit.store.test_query_index import plan_of
from tests.unit.store.test_sqlite import files_with, on_each_reader

SECRET = b"sesame-open-up"


async def full_run(
    store: SqliteStore, run_id: str = "run-1", *, steps: int = 200, size: int = 20_000
) -> RunRecord:
    """A run that has ended, with a large event and a large step for each of its steps."""
    run = await make_run(store, run_id)
    data = b'{"eventType":"x","stepId":"s","text":"%b"}' % (SECRET * (size // len(SECRET)))
    for head in range(steps):
        last = head + 1 == steps
        end = {"status": "completed", "ended_at": "2026-01-01T00:00:00.000Z"} if last else {}
        step = StepRow(head + 1, "s", "", 1, "completed", data)
        await store.append(batch(run, head, data, steps=[step], result=data, **end))
    return run


async def purge(store: SqliteStore, run: RunRecord) -> None:
    assert await store.purge_runs([run.no])
    while not await store.purge_rows([run.no], limit_rows=100, limit_bytes=1 << 20):
        pass
    while await store.compact(limit_bytes=1 << 20):
        pass


def test_every_table_with_rows_of_a_run_is_known() -> None:
    """A table that is forgotten here would keep its rows of purged runs for ever."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        migrate_sqlite(database)
        found = database.execute(
            "SELECT m.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c"
            " WHERE m.type = 'table' AND c.name = 'run_no'"
        )
        assert {name for (name,) in found} - {
            "purged_run",
            "ended_run",
            "importing_run",
            "due_outline",
            # Its row goes with that in `run`, by a trigger.
            "run_error",
            # A run that has ended waits no more.
            "queue",
            # It says for a while that the run was deleted.
            "recorded_trace",
        } == set(ROWS_OF_RUN)


async def test_due_runs_and_leftover_rows_are_found_by_an_index(tmp_path: Path) -> None:
    statements: list[str] = []
    async with SqliteStore(tmp_path / "db") as store:
        run = await full_run(store, steps=2, size=50)
        others = [(await full_run(store, f"run-{number}", steps=2, size=50)).no for number in (2, 3)]
        await on_each_reader(store, lambda db: db.set_trace_callback(statements.append))
        await store.connections.write(lambda db: db.set_trace_callback(statements.append))
        for with_content in (False, True):
            await store.ended_runs(run.flow_id, before="2027", with_content=with_content, limit=5)
        _, place = await store.strip_content([run.no], None, limit_rows=1, limit_bytes=1 << 20)
        await store.strip_content([run.no], place, limit_rows=9, limit_bytes=1 << 20)
        await store.purge_runs([run.no])
        while not await store.purge_rows([run.no], limit_rows=1, limit_bytes=1):
            pass
        many = {"limit_rows": 1000, "limit_bytes": 1 << 20}
        assert await store.strip_content(others, None, **many) == (2, None)
        assert await store.purge_runs(others) == await store.purge_rows(others, **many) == 2
        await on_each_reader(store, lambda db: db.set_trace_callback(None))
        await store.connections.write(lambda db: db.set_trace_callback(None))
        asked = [text for text in statements if text.startswith(("SELECT", "DELETE", "UPDATE"))]
        plans = {text: await plan_of(store, text) for text in asked}
    assert len(plans) > 30
    of_lists = ("LIST SUBQUERY", "SCAN json_each")
    for text, plan in plans.items():
        if not any(table in text for table in ("purged_run LIMIT", "_run ORDER", "run_number")):
            allowed = ("SEARCH", "CORRELATED SCALAR", *of_lists)
            assert [line for line in plan if not line.startswith(allowed)] == [], text
    assert "run_with_content (flow_id=? AND ended_at<?)" in str(plans)
    assert "run_ended (flow_id=? AND ended_at<?)" in str(plans)


async def test_disk_use_goes_down_and_nothing_of_the_run_is_in_any_file(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "db", synchronous="NORMAL") as store:
        run, other = await full_run(store), await full_run(store, "run-2", steps=20, size=1000)
        await store.compact(limit_bytes=1 << 20)
        before = (tmp_path / "db").stat().st_size
        assert before > 8_000_000
        await purge(store, run)
        assert (tmp_path / "db").stat().st_size < before / 10
        assert (tmp_path / "db-wal").stat().st_size == 0
        assert len(await store.events(other.no, after=0, limit_bytes=1 << 20)) == 20
        await purge(store, other)
        # While the file is open: what a reader could still find there is not only forgotten but overwritten.
        assert files_with(SECRET, tmp_path) == []
