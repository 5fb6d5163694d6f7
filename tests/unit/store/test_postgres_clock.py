"""Processes whose clocks are not that of their PostgreSQL: what times decide goes by the database's."""

from datetime import UTC, datetime, timedelta

import pytest

from runglass.support.clock import iso_ms
from runglass.testing import running_server
from runglass.wire.query import created_ms
from tests.contract.wire import ANYTHING, frames, http_for, known_key
from tests.postgres_replication import run_apart
from tests.postgres_server import connected, postgres_database

pytestmark = pytest.mark.slow

AHEAD = timedelta(hours=2)
"""By how much the clock of the database is ahead of that of its processes."""
LATE = timedelta(minutes=1)
"""How old a time may be that was written just now."""
# In `public`, whose functions these databases find before those of the system.
_CLOCK = (
    "CREATE FUNCTION public.{0}() RETURNS timestamptz LANGUAGE sql {1} AS"
    " $$ SELECT pg_catalog.{0}() + interval '{2} s' $$"
)
_TIMES = (
    "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
    " AND data_type = 'text' AND (column_name LIKE '%\\_at' OR column_name = 'at') AND table_name IN"
    " (SELECT relname FROM pg_class WHERE relkind IN ('r', 'p'))"
)


async def set_clock(address: str, ahead: timedelta) -> None:
    """Lets the clock of the database be ahead of that of this machine."""
    async with connected(address) as connection:
        for name, changes in (("now", "STABLE"), ("clock_timestamp", "VOLATILE")):
            await connection.execute(_CLOCK.format(name, changes, ahead.total_seconds()))
        name = await connection.fetchval("SELECT current_database()")
        await connection.execute(f"ALTER DATABASE {name} SET search_path = public, pg_catalog")


async def times_of(address: str) -> list[tuple[str, str]]:
    """Every time that the database has, with its column."""
    kept: list[tuple[str, str]] = []
    async with connected(address) as connection:
        for table, column in await connection.fetch(_TIMES):
            rows = await connection.fetch(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL")
            kept += [(f"{table}.{column}", row[0]) for row in rows]
    return kept


def test_all_times_that_are_kept_are_those_of_the_database() -> None:
    with postgres_database() as address:
        run_apart(set_clock(address, AHEAD))
        with running_server(store=address) as server, http_for(server, server.key) as http:
            server.push(ANYTHING)
            made = http.post("/keys", json={"role": "read"}).json()
            assert http.delete(f"/keys/{made['id']}").is_success
            headers = {"Idempotency-Key": "call"}
            run_id = http.post("/seq/acme/demo/anything/jobs", json={}, headers=headers).json()["executionId"]
            events = frames(http.get(f"/flow-runs/{run_id}/trace/stream").text)
            project_id = known_key(server, server.key).project_id
            server.call(server.runtime.store.answer_call(project_id, "call", status=200, answer=b"{}"))
            kept = [("event", event.data["at"]) for event in events] + run_apart(times_of(address))
            now = datetime.now(UTC) + AHEAD
            assert abs(server.runtime.store.clock.now() - now) < LATE
    kept.append(("the id of a run", iso_ms(created_ms(run_id))))
    assert {place for place, _ in kept} >= {
        *("event", "run.ended_at", "run_outcome.ended_at", "call.created_at", "call_answer.answered_at"),
        *("api_key.created_at", "api_key.revoked_at", "audit.at"),
        *("flow.updated_at", "flow_version.created_at"),
    }
    assert [each for each in kept if abs(datetime.fromisoformat(each[1]) - now) > LATE] == []
