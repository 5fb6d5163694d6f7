"""How PostgreSQL finds runs: by an index that begins with the project, however rare what is wanted is."""

import asyncio
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from runglass.store.postgres.query_index import SEARCH_SQL
from runglass.store.postgres.sql_helpers import perform
from runglass.store.query_index import source_of
from runglass.store.query_search import ABOVE_ALL, SearchLimits
from runglass.store.statements import fetch
from runglass.wire.query_parser import parse_run_query
from tests.conformance.test_run_lists import NOW
from tests.postgres_server import postgres_server

pytestmark = pytest.mark.slow

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


async def test_no_query_goes_through_the_runs_of_other_projects(tmp_path: Path) -> None:
    address = await (await asyncio.to_thread(postgres_server)).database_of(tmp_path)
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
