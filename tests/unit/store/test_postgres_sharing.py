"""Several processes on one PostgreSQL: no run is claimed twice, no event lost, no change missed.

Their clocks may differ: what times decide goes by that of the database.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from runglass.engine.models.budget import Budgets
from runglass.errors import ImportConflict, StoreError, WrongExpectedVersion
from runglass.store.postgres.leases import CLAIMS_LOCK
from runglass.store.postgres.store import PostgresStore
from runglass.store.records import RunRecord
from runglass.support.clock import iso, iso_ms
from runglass.testing import running_server
from runglass.wire.admin_api import SERVER
from runglass.wire.query import RunQuery, created_ms
from tests.conformance.stores import batch, make_run
from tests.conformance.test_imports import EVENTS, RUN, imported, project_id_of
from tests.contract.wire import ANYTHING, frames, http_for, known_key
from tests.fakes import VirtualClock
from tests.postgres_server import connected, postgres_database, run_apart, until_waiting
from tests.records import new_run, there

pytestmark = pytest.mark.slow

RUNS = 60


@pytest.fixture
async def stores(address: str) -> AsyncIterator[list[PostgresStore]]:
    async with PostgresStore(address) as one, PostgresStore(address) as two, PostgresStore(address) as three:
        yield [one, two, three]


async def test_no_run_is_claimed_twice_no_room_is_seen_twice_and_each_run_is_claimed(
    stores: list[PostgresStore], address: str
) -> None:
    for number in range(RUNS):
        await make_run(stores[0], f"run-{number}")
    owners = dict(zip("abcdef", stores * 2, strict=True))
    for owner, store in owners.items():
        await store.hold_lease(owner, until="2999-01-01", renew=False)

    claimed: list[str] = []

    async def claim(owner: str, most_each: int | None = None) -> None:
        runs = await owners[owner].claim_runs(owner, now="2026-01-01", limit=3, most_each=most_each)
        claimed.extend(run.id for run in runs)

    async def claim_all(owner: str) -> None:
        # What others have locked at this moment is passed over, so an empty answer is not the end.
        while len(claimed) < RUNS:
            await claim(owner)

    async with connected(address) as other, other.transaction():
        # Each waits for the one before it, which has room that it would see, too.
        await other.execute(f"SELECT pg_advisory_xact_lock({CLAIMS_LOCK})")
        claims = [asyncio.create_task(claim(owner, most_each=5)) for owner in owners]
        await until_waiting(address)
    await asyncio.gather(*claims)
    assert len(claimed) == 5
    await asyncio.gather(*map(claim_all, owners))
    assert len(claimed) == len(set(claimed)) == RUNS


async def test_of_two_writers_of_a_run_one_alone_goes_on(stores: list[PostgresStore]) -> None:
    runs = [await make_run(stores[0], f"run-{number}") for number in range(20)]
    written: dict[int, int] = {run.no: 0 for run in runs}

    async def write(store: PostgresStore) -> None:
        for seq in range(5):
            outcomes = await asyncio.gather(
                *(store.append(batch(run, seq, b"e", spent_usd=Decimal(1), log_bytes=1)) for run in runs),
                return_exceptions=True,
            )
            for run, outcome in zip(runs, outcomes, strict=True):
                assert outcome is None or isinstance(outcome, WrongExpectedVersion)
                written[run.no] += outcome is None

    await asyncio.gather(*(write(store) for store in stores))
    assert set(written.values()) == {5}
    for run in runs:
        assert [seq for seq, _ in await stores[1].events(run.no, after=0, limit_bytes=99)] == [1, 2, 3, 4, 5]
    assert there(await stores[2].project(runs[0].project_id)).spent_usd == 100


async def test_whoever_reads_on_from_a_change_misses_none(stores: list[PostgresStore]) -> None:
    first = await make_run(stores[0])
    seen: dict[str, int] = {}
    is_over = asyncio.Event()

    async def write(store: PostgresStore, name: str) -> None:
        for number in range(10):
            run = await store.create_run(new_run(first.project_id, first.flow_id, id=f"{name}-{number}"))
            await store.append(batch(run, 0, b"1"))
            await store.append(batch(run, 1, b"2", status="completed"))

    async def follow() -> None:
        after = 0
        while True:
            was_over = is_over.is_set()
            for change in await stores[2].changed_runs(first.project_id, RunQuery(), after=after, limit=5):
                assert change.number > after
                after = seen[change.run_id] = change.number
            if was_over and after == await stores[2].last_change(first.project_id):
                return

    following = asyncio.create_task(follow())
    await asyncio.gather(*(write(store, str(number)) for number, store in enumerate(stores)))
    is_over.set()
    await following
    changed = await stores[0].changed_runs(first.project_id, RunQuery(), after=0, limit=100)
    assert {each.run_id: each.number for each in changed} == seen
    assert await stores[0].last_change(first.project_id) == 1 + 3 * 30


async def test_clocks_that_do_not_agree_take_no_lease_away_and_keep_none_alive(
    stores: list[PostgresStore], address: str
) -> None:
    await make_run(stores[0])
    # One is of a day that is over, the other one of a day to come.
    early, late = VirtualClock(), VirtualClock()
    late.set_back(-1e9)
    async with PostgresStore(address, clock=early) as one, PostgresStore(address, clock=late) as two:

        async def hold(store: PostgresStore, owner: str, for_s: float) -> None:
            until = iso(store.clock.now() + timedelta(seconds=for_s))
            assert await store.hold_lease(owner, until=until, renew=False)

        await hold(one, "early", 60)
        await hold(two, "late", 60)
        assert len(await one.claim_runs("early", now=iso(one.clock.now()), limit=9)) == 1
        assert await two.claim_runs("late", now=iso(two.clock.now()), limit=9) == []
        await one.end_lease("early")
        await hold(two, "gone", -1)
        assert len(await two.claim_runs("gone", now=iso(two.clock.now()), limit=9)) == 1
        assert len(await one.claim_runs("new", now=iso(one.clock.now()), limit=9)) == 1


async def test_a_task_of_maintenance_is_done_by_one_process_until_that_is_gone(
    stores: list[PostgresStore],
) -> None:
    claims = await asyncio.gather(*(store.claim_maintenance("removal", for_s=60) for store in stores))
    assert sorted(claims) == [False, False, True]
    first, other = stores[claims.index(True)], stores[claims.index(False)]
    assert await other.claim_maintenance("another", for_s=60), "each task is claimed for itself"
    assert await first.claim_maintenance("removal", for_s=0)
    assert await other.claim_maintenance("removal", for_s=60)
    assert not await first.claim_maintenance("removal", for_s=60)


async def test_the_import_of_a_process_is_given_up_by_others_once_it_is_gone(
    stores: list[PostgresStore],
) -> None:
    ours, theirs, _ = stores
    project_id = (await ours.ensure_project("acme", "demo")).id
    await theirs.hold_lease("theirs", until="2999-01-01", renew=False)
    no = await theirs.begin_import(project_id, "from-afar")
    await ours.abandon_imports()
    await theirs.import_rows(no, [(1, b"1")], [])
    await ours.end_lease("theirs")
    await ours.abandon_imports()
    with pytest.raises(StoreError, match="given up"):
        await theirs.import_rows(no, [(2, b"2")], [])


@pytest.mark.parametrize(
    ("flow_id", "project", "told"),
    [
        ("flow-from-afar", "another", "flow flow-from-afar cannot be made in this project"),
        ("flow-of-theirs", "demo", r"the project has a flow 'far' of its own \(flow-of-theirs\)"),
    ],
)
async def test_an_import_sees_the_flow_that_somebody_else_makes_at_the_same_time(
    stores: list[PostgresStore], address: str, flow_id: str, project: str, told: str
) -> None:
    ours = stores[0]
    project_id = await project_id_of(ours)
    other_id = await project_id_of(ours, project)
    no = await ours.begin_import(project_id, RUN)
    await ours.import_rows(no, EVENTS, [])
    made = (
        f"INSERT INTO flow (id, project_id, slug, updated_at) VALUES ('{flow_id}', {other_id}, 'far', '2026')"
    )
    async with connected(address) as theirs:
        await theirs.execute(f"BEGIN; {made}")
        importing = asyncio.create_task(ours.finish_import(imported(no, project_id), by=SERVER))
        await until_waiting(address)
        assert not importing.done()
        await theirs.execute("COMMIT")
    with pytest.raises(ImportConflict, match=told):
        await importing
    assert await ours.run(RUN) is None


async def test_what_two_processes_remove_at_once_is_counted_once(stores: list[PostgresStore]) -> None:
    run = await make_run(stores[0])
    event = b'{"type":"step_output","seq":1,"at":"2026-01-01T00:00:00.000Z","output":"%s"}' % (b"x" * 1000)
    result = b'"%s"' % (b"r" * 500)
    counted_bytes = {"log_bytes": len(event), "open_bytes": len(result)}
    ended = batch(run, 0, event, status="completed", result=result, ended_at="2026", **counted_bytes)
    await stores[0].append(ended)

    async def counted() -> tuple[int, int, int]:
        found = there(await stores[0].run(run.id))
        return found.log_bytes, found.open_bytes, there(await stores[0].project(run.project_id)).data_bytes

    assert (await counted())[0] == len(event)
    await asyncio.gather(
        *(store.strip_content([run.no], None, limit_rows=9, limit_bytes=1 << 20) for store in stores)
    )
    [(_, left)] = await stores[0].events(run.no, after=0, limit_bytes=9)
    log_bytes, open_bytes, data_bytes = await counted()
    assert log_bytes == len(left) < len(event)
    assert data_bytes == log_bytes + open_bytes
    await asyncio.gather(*(store.expire_answers(before="9999", limit=9) for store in stores))
    assert await counted() == (len(left), 0, len(left))
    purged = await asyncio.gather(*(store.purge_runs([run.no], by=SERVER) for store in stores))
    assert (sum(purged), there(await stores[0].project(run.project_id)).data_bytes) == (1, 0)
    assert len(await stores[0].audit(run.project_id, action="run.purged", limit=9)) == 1
    through = await asyncio.gather(
        *(store.purge_rows([run.no], limit_rows=9, limit_bytes=1 << 20) for store in stores)
    )
    assert set(through) == {1}


async def test_calls_that_wait_for_a_budget_leave_connections_to_others(
    stores: list[PostgresStore], address: str
) -> None:
    store, budgets = stores[0], Budgets(stores[0], stores[0].clock)
    [run, *_] = [await make_run(store, f"run-{number}") for number in range(20)]
    await store.set_budget(run.project_id, Decimal(20))
    await store.hold_lease("me", until="2999-01-01", renew=False)
    runs = await store.claim_runs("me", now="2026-01-01", limit=20)

    async def reserve(run: RunRecord) -> None:
        async with budgets.reserved(run, Decimal("0.1")):
            pass

    async with asyncio.timeout(30), connected(address) as other:
        async with other.transaction():
            await other.execute("SELECT FROM project WHERE id = $1 FOR UPDATE", run.project_id)
            reserving = [asyncio.create_task(reserve(each)) for each in runs]
            await until_waiting(address)
            assert await store.project(run.project_id) is not None
        await asyncio.gather(*reserving)


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
