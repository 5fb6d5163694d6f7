"""How PostgreSQL finds runs: by an index that begins with the project, however rare what is wanted is."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from runglass.store.postgres.query_index import source_of
from runglass.store.postgres.sql_helpers import in_postgres
from runglass.store.query_search import ABOVE_ALL, SearchLimits
from runglass.store.statements import numbered
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
  change_no, summary) SELECT n, lpad(n::text, 9, '0'), 1 + n % 2, 'one', 1,
  (ARRAY['completed', 'failed'])[1 + n % 2], 'api', 'full', '{SESSION}', 0, n, ''
  FROM generate_series(1, 20000) AS n;
ANALYZE run;
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
            source = await source_of(connection, 1, parse_run_query(text, now=NOW), SearchLimits())
            what = "id" if source.condition is None else "id, error"
            for newest in (True, False):
                sql = in_postgres(numbered(source.select(what, rows=100, newest=newest)))
                plan = await connection.fetch(f"EXPLAIN {sql}", *source.values(ABOVE_ALL, ""))
                found[text, newest] = [
                    name for (line,) in plan for name in line.split() if name.startswith("run_")
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
            ("error:x", "run_by_status"),
        )
        for newest in (True, False)
    }
