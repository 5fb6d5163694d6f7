"""How stores find runs: by indexes alone, in pieces of any size, however rare what is wanted is."""

import asyncio
import re
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from runglass.store.postgres.sql_helpers import SEARCH_SQL, perform
from runglass.store.query_index import source_of
from runglass.store.query_search import ABOVE_ALL, SearchLimits
from runglass.store.sqlite.store import SqliteStore
from runglass.store.statements import fetch
from runglass.wire.query import RunQuery, first_id
from runglass.wire.query_parser import parse_run_query
from tests.conformance.test_run_lists import CASES, NOW, all_pages, asked, known_runs
from tests.records import new_run
from tests.unit.store.test_sqlite import on_each_reader


async def plan_of(store: SqliteStore, sql: str) -> list[str]:
    """The lines of SQLite's plan for the statement."""
    rows = await store.connections.read(lambda db: db.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall())
    return [str(row[3]) for row in rows]


@pytest.fixture(scope="module")
def known_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the known runs, which tests only read."""
    path = tmp_path_factory.mktemp("known") / "db"

    async def make() -> None:
        async with SqliteStore(path) as store:
            await known_runs(store)

    asyncio.run(make())
    return path


@pytest.mark.parametrize("text", [text for text, _ in CASES])
async def test_no_query_scans_a_table_or_sorts(known_file: Path, text: str) -> None:
    statements: list[str] = []
    async with SqliteStore(known_file) as store:
        query = await asked(store, text)
        await on_each_reader(store, lambda db: db.set_trace_callback(statements.append))
        await store.runs(1, query, limit=20)
        await store.count_runs(1, query, until_ms=round(NOW.timestamp() * 1000), buckets=10)
        await on_each_reader(store, lambda db: db.set_trace_callback(None))
        selects = {
            each
            for each in statements
            if each.startswith(("SELECT", "WITH")) and re.search(r"\brun(_error)?\b", each)
        }
        assert selects
        for select in selects:
            plan = await plan_of(store, select)
            assert any("USING" in line for line in plan), (select, plan)
            of_run = [line for line in plan if line.startswith(("SCAN run", "USE TEMP B-TREE"))]
            # The runs of a page, which are few, are put in order.
            assert not of_run or " WHERE id IN (" in select, (select, plan)
            # The groups are found without a look at a row.
            assert not select.startswith("WITH") or "".join(plan).count("run USING COVERING INDEX") == 6


async def test_a_broken_summary_hides_no_other_run(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "db") as store:
        project = await store.ensure_project("acme", "demo")
        flow = await store.put_draft(project.id, "one", name=None, capture=None, source=b"{}")
        await store.create_run(new_run(project.id, flow.id, id=first_id(1), summary=b"\x00 no JSON"))
        totals = b'"totals":{"tokens":{"total":5},"byModel":{"echo":{}}}'
        good = b'{"startedAt":"2025-01-01T00:00:00.000Z",%b}' % totals
        await store.create_run(new_run(project.id, flow.id, id=first_id(2), summary=good))
        assert len((await store.runs(project.id, RunQuery(), limit=9)).runs) == 2
        for text in ("tokens:5", "model:echo", "duration:>1h", "-error:x tokens:5"):
            assert await all_pages(store, await asked(store, text), limit=9) == [first_id(2)], text


SESSION = "00000000-0000-4000-8000-000000000000"
# As many runs stand there before they are vacuumed: of the other project each has failed, and here none has.
RUNS = f"""
ALTER TABLE run SET (autovacuum_enabled = off);
INSERT INTO project (org, name) VALUES ('acme', 'demo'), ('acme', 'other');
INSERT INTO flow (id, project_id, slug, updated_at) VALUES ('one', 1, 'one', '');
INSERT INTO run (no, id, project_id, flow_id, version, status, trigger_type, capture, session_id, head,
  change_no, summary, error) SELECT n, lpad(n::text, 9, '0'), 1 + n % 2, 'one', 1,
  (ARRAY['completed', 'failed'])[1 + n % 2], 'api', 'full', '{SESSION}', 0, n, '',
  CASE WHEN n % 2 = 1 THEN 'x' END
  FROM generate_series(1, 20000) AS n;
ANALYZE run;
ANALYZE run_error;
"""


@pytest.mark.slow
async def test_no_query_goes_through_the_runs_of_other_projects(address: str) -> None:
    connection = await asyncpg.connect(address)
    found = {}
    try:
        await connection.execute(RUNS)
        for text in (
            "",
            "flow:one",
            "status:failed",
            "flow:one trigger:api",
            f"session:{SESSION}",
            "error:x",
        ):
            query = parse_run_query(text, now=NOW)
            source = await perform(partial(source_of, 1, query, SEARCH_SQL, SearchLimits()), connection)
            what = f"id, {source.condition}" if source.condition else "id"
            for newest in (True, False):
                sql, values = SEARCH_SQL.rows(source, what, 100, newest=newest)
                values |= source.values | {"since": "", "before": ABOVE_ALL}
                plan = await perform(fetch(f"EXPLAIN {sql}", **values), connection)
                found[text, newest] = [
                    name
                    for (line,) in plan
                    for name in line.split()
                    if name.startswith("run_") and name != "run_error"
                ]
    finally:
        await connection.close()
    assert found == {
        (text, newest): [index]
        for text, index in (
            ("", "run_by_project"),
            ("flow:one", "run_by_flow"),
            ("status:failed", "run_by_status"),
            ("flow:one trigger:api", "run_by_group"),
            (f"session:{SESSION}", "run_by_session"),
            ("error:x", "run_error_pkey"),
        )
        for newest in (True, False)
    }
