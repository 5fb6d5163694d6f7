"""Processes whose clocks are not that of their PostgreSQL: what times decide goes by the database's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runglass.config.settings import Settings
from runglass.flows.parser import parse_flow
from runglass.log.events import decode_event
from runglass.runtime.composition import open_runtime
from runglass.runtime.runtime import Runtime, Submitted, push_flow
from runglass.store.keys import make_key
from runglass.store.records import IdempotencyKey, Project, RunRecord
from runglass.support.clock import SystemClock, iso_ms
from runglass.wire.query import created_ms
from runglass.wire.run_api import RunRequest
from tests.postgres_server import connected

pytestmark = pytest.mark.slow

AHEAD = timedelta(hours=2)
"""By how much the clock of the database is ahead of that of its processes."""
LATE = timedelta(minutes=1)
"""How old a time may be that was written just now."""
WAIT_S = 30 * 60.0
LONGEST_PAUSE_S = 900.0
"""Housekeeping pauses for less."""
LIMIT_S = 60.0
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


@asynccontextmanager
async def process(address: str, folder: Path) -> AsyncIterator[tuple[Runtime, Project]]:
    """A process with a project on the database, until the block ends."""
    settings = Settings(data=folder, store=address, stop_grace_s=0.0, answer_ttl_s=3600.0, pause_limit_h=1.0)
    async with open_runtime(settings) as runtime:
        yield runtime, await runtime.store.ensure_project("acme", "demo")


async def start(
    runtime: Runtime, project: Project, steps: str, *, call: IdempotencyKey | None = None
) -> Submitted:
    flow = await push_flow(runtime.store, project, parse_flow(f"slug: test\nsteps: {steps}"))
    await runtime.store.publish(flow.id)
    return await runtime.submit(project, "test", RunRequest(), version=None, trigger_type="api", call=call)


async def ended(runtime: Runtime, run_id: str) -> RunRecord:
    """The run, once it has ended. Where a claim has all places just now, it waits in the store first."""
    begun = await runtime.store.run(run_id)
    assert begun is not None
    async with asyncio.timeout(LIMIT_S):
        async for _ in runtime.tails.follow(begun):
            pass
    run = await runtime.store.run(run_id)
    assert run is not None
    return run


def wrong_by(patch: pytest.MonkeyPatch, by: timedelta) -> None:
    """Lets the clock of this machine be wrong from now on."""
    patch.setattr(SystemClock, "now", lambda _: datetime.now(UTC) + by)


async def test_all_times_that_are_kept_are_those_of_the_database(address: str, tmp_path: Path) -> None:
    await set_clock(address, AHEAD)
    async with process(address, tmp_path) as (runtime, project):
        store = runtime.store
        key = make_key()
        made = await store.add_key(project.id, "admin", key.digest, key.hint)
        await store.revoke_key(project.id, made.id)
        call = IdempotencyKey("call", b"digest")
        run_id = (await start(runtime, project, "[{id: a, type: passthrough}]", call=call)).run.id
        run = await ended(runtime, run_id)
        await store.answer_call(project.id, "call", status=200, answer=b"{}")
        events = [decode_event(data) for _, data in await store.events(run.no, after=0, limit_bytes=1 << 20)]
        assert events[-1].event_type == "flow_completed"
        kept = [("event", event.at) for event in events]
        async with connected(address) as connection:
            for table, column in await connection.fetch(_TIMES):
                rows = await connection.fetch(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL")
                kept += [(f"{table}.{column}", row[0]) for row in rows]
        kept.append(("the id of a run", iso_ms(created_ms(run_id))))
        now = datetime.now(UTC) + AHEAD
        assert {place for place, _ in kept} >= {
            *("event", "run.ended_at", "run_outcome.ended_at", "call.created_at", "call_answer.answered_at"),
            *("api_key.created_at", "api_key.revoked_at", "audit.at"),
            *("flow.updated_at", "flow_version.created_at"),
        }
        assert [each for each in kept if abs(datetime.fromisoformat(each[1]) - now) > LATE] == []
        assert abs(store.clock.now() - now) < LATE


@pytest.mark.parametrize(("first", "second"), [(-1, 0), (0, 1)])
async def test_a_wait_that_another_process_takes_over_keeps_its_deadline(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int, second: int
) -> None:
    begun_s: asyncio.Queue[float] = asyncio.Queue()
    sleep = SystemClock.sleep

    async def noting(clock: SystemClock, seconds: float) -> None:
        if seconds > LONGEST_PAUSE_S:
            begun_s.put_nowait(seconds)
        await sleep(seconds)

    monkeypatch.setattr(SystemClock, "sleep", noting)
    wrong_by(monkeypatch, timedelta(hours=first))
    async with process(address, tmp_path / "first") as (runtime, project):
        await start(runtime, project, f"[{{id: hold, type: wait, ms: {WAIT_S * 1000:.0f}}}]")
        async with asyncio.timeout(LIMIT_S):
            assert await begun_s.get() == WAIT_S
    wrong_by(monkeypatch, timedelta(hours=second))
    async with process(address, tmp_path / "second"):
        async with asyncio.timeout(LIMIT_S):
            assert WAIT_S - LATE.total_seconds() < await begun_s.get() <= WAIT_S
