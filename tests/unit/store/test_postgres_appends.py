"""What PostgreSQL is asked for by appends, by runs that begin and by queries: no more than is needed."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, cast
from unittest.mock import Mock

import asyncpg
import pytest

from runglass.errors import DuplicateIdempotencyKey, PermanentStoreError
from runglass.store.postgres.append import MOST_BYTES, AppendQueue
from runglass.store.postgres.connections import Connections
from runglass.store.postgres.run_creation import RunRequests
from runglass.store.postgres.sql_helpers import SEARCH_SQL, perform
from runglass.store.postgres.store import PostgresStore
from runglass.store.query_index import ABOVE_ALL, SearchLimits, source_of
from runglass.store.records import IdempotencyKey, NewRun, RunRecord
from runglass.store.statements import fetch
from runglass.wire.query_parser import parse_run_query
from tests.conformance.stores import batch, make_run, run_with
from tests.conformance.test_run_lists import NOW
from tests.fakes import in_virtual_time, let_time_pass
from tests.postgres_proxy import cutting_proxy
from tests.records import new_recording, new_run, run_record, there

# Statements are counted, whether they find rows or not.
SEE = """
CREATE TABLE seen (name text);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO seen VALUES (TG_TABLE_NAME || ' ' || lower(TG_OP));
  RETURN NULL;
END
$$
"""
SEE_TABLE = "CREATE TRIGGER see AFTER INSERT OR UPDATE OR DELETE ON {} EXECUTE FUNCTION see()"


@pytest.mark.slow
async def test_an_append_in_the_middle_of_a_run_changes_its_row_and_looks_at_no_queue(
    store: PostgresStore, session: asyncpg.Connection
) -> None:
    run = await run_with(store, b"1", owner="me")
    await session.execute(";".join([SEE, *map(SEE_TABLE.format, ("queue", "project_total", "run"))]))

    async def seen() -> set[str]:
        return {str(row[0]) for row in await session.fetch("DELETE FROM seen RETURNING name")}

    await store.append(batch(run, 1, b"2", owner="me"))
    assert await seen() == {"run update"}
    await store.append(batch(run, 2, b"3", owner="me", log_bytes=5))
    assert await seen() == {"run update", "project_total insert", "project_total update"}


LARGE = 1000
"""The run whose events leave no room in a statement."""


class Statements:
    """A database that takes so long for its first statements, and 5 ms for others, and says what was sent."""

    def __init__(self, *take_ms: int) -> None:
        self._take_ms = list(take_ms)
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self.sent: list[tuple[int, Sequence[int]]] = []

    async def at(self, ms: int) -> None:
        await let_time_pass(self._began_s + ms / 1000 - self._loop.time())

    async def repeat(self, work: Any, *, patience_s: float) -> Any:
        return await work(self)

    async def fetch(self, _: str, __: int, rows: Sequence[Any], *___: Any) -> list[tuple[int]]:
        runs = [row[0] for row in rows]
        self.sent.append((round((self._loop.time() - self._began_s) * 1000), runs))
        await let_time_pass((self._take_ms.pop(0) if self._take_ms else 5) / 1000)
        return [(run,) for run in runs]


@pytest.mark.parametrize(
    ("take_ms", "appends", "sent"),
    [
        # For a quick statement they wait; for one that is not 20 ms, and those that come later not at all.
        (
            [5, 18, 1000],
            [(0, [1]), (1, [2]), (21, [3]), (24, [4]), (25, [3]), (50, [5]), (51, [6]), (1025, [7])],
            [(0, [1]), (5, [2]), (23, [3]), (43, [4]), (50, [5]), (55, [6]), (1023, [3]), (1028, [7])],
        ),
        # Many are sent beside it, while there are not three; where few wait, they are sent with the last one.
        (
            [18, 9, 9],
            [(0, [1]), (1, range(100, 164)), (2, range(200, 264)), (3, range(300, 363)), (4, [9]), (12, [2])],
            [(0, [1]), (1, range(100, 164)), (2, range(200, 264)), (10, [*range(300, 363), 9]), (18, [2])],
        ),
        # No statement is too large, and another one goes with what is left at once.
        ([], [(0, range(1, 401))], [(0, range(1, 257)), (0, range(257, 401))]),
        # Nor has it two appends of a run, or more after one that is large.
        ([], [(0, [1, 1, LARGE, 2])], [(0, [1, LARGE]), (5, [1, 2])]),
    ],
)
@in_virtual_time
async def test_appends_wait_for_a_statement_as_long_as_it_is_quick(
    take_ms: list[int], appends: list[tuple[int, Sequence[int]]], sent: list[tuple[int, Sequence[int]]]
) -> None:
    database = Statements(*take_ms)
    queue = AppendQueue(cast(Connections, database), patience_s=1)
    writing = []
    for at_ms, runs in appends:
        await database.at(at_ms)
        for run in runs:
            event = bytes(MOST_BYTES if run == LARGE else 1)
            writing.append(asyncio.create_task(queue.append(batch(run_record(no=run), 0, event))))
    await asyncio.gather(*writing)
    assert database.sent == [(at_ms, list(runs)) for at_ms, runs in sent]


@in_virtual_time
async def test_an_append_whose_caller_has_gone_holds_up_none_beside_it() -> None:
    database = Statements()
    queue = AppendQueue(cast(Connections, database), patience_s=1)
    gone, other = (asyncio.create_task(queue.append(batch(run_record(no=run), 0))) for run in (1, 2))
    await database.at(1)
    gone.cancel()
    await other
    assert database.sent == [(0, [1, 2])]


async def test_those_that_are_asked_for_in_one_turn_are_read_by_one_statement() -> None:
    asked: list[list[int]] = []

    async def fetch(_: str, runs: list[int]) -> list[tuple[int, bytes]]:
        asked.append(sorted(runs))
        await asyncio.sleep(0)
        return [(run, b"request %d" % run) for run in runs if run < 10]

    database = Mock(fetch=fetch)
    reads = RunRequests(Mock(read=lambda work: work(database)))
    asking = [asyncio.create_task(reads.read(run)) for run in (1, 2, 3, 10)]
    await asyncio.sleep(0)
    asking[0].cancel()
    assert await asyncio.gather(*asking[1:]) == [b"request 2", b"request 3", None]
    assert await reads.read(4) == b"request 4"
    assert asked == [[1, 2, 3, 10], [4]]


READ = "FROM run WHERE id = $1"


@pytest.mark.slow
@pytest.mark.parametrize("is_pooler", [False, True])
async def test_a_statement_is_prepared_once_for_a_connection_but_never_by_way_of_a_pooler(
    address: str, *, is_pooler: bool
) -> None:
    async with (
        cutting_proxy(address, names_itself=is_pooler) as (proxy, by_way_of_it),
        PostgresStore(by_way_of_it) as store,
    ):
        run = await make_run(store)
        for seq in range(3):
            await store.append(batch(run, seq, b"1"))
            assert there(await store.run(run.id)).head == seq + 1
        prepared = [statement for statement in proxy.prepared if statement.endswith(READ)]
        assert len(prepared) == (0 if is_pooler else 1)
        assert bool(proxy.prepared) is not is_pooler


@pytest.mark.slow
async def test_one_that_cannot_be_created_leaves_those_beside_it_alone(store: PostgresStore) -> None:
    first = await make_run(store)
    new = [new_run(first.project_id, first.flow_id, id=f"new-{number}") for number in range(30)]
    call = IdempotencyKey("key", b"digest")
    new[3] = new_run(first.project_id, first.flow_id, id="new-3", session_id="no\0text")
    new[4] = new_run(first.project_id, first.flow_id, id="new-4", call=call)
    new[5] = new_run(first.project_id, first.flow_id, id="new-5", call=call)
    created = await asyncio.gather(*map(store.create_run, new), return_exceptions=True)
    assert [number for number, each in enumerate(created) if not isinstance(each, RunRecord)] == [3, 5]
    assert isinstance(created[3], PermanentStoreError)
    assert isinstance(created[5], DuplicateIdempotencyKey)


@pytest.mark.slow
async def test_a_run_whose_caller_has_left_before_its_turn_is_not_created(store: PostgresStore) -> None:
    first = await make_run(store)

    def create(name: str) -> "asyncio.Task[RunRecord]":
        return asyncio.create_task(store.create_run(new_run(first.project_id, first.flow_id, id=name)))

    under_way = create("under-way")
    # It is taken in the second of these.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    left, kept = create("left"), create("kept")
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.gather(under_way, kept)
    assert left.cancelled()
    assert await store.run("left") is None
    assert await store.run("kept") is not None


@pytest.mark.slow
async def test_those_that_are_created_together_wait_in_the_order_of_those_that_come_one_by_one(
    store: PostgresStore, session: asyncpg.Connection
) -> None:
    one, other = await store.ensure_project("acme", "one"), await store.ensure_project("acme", "other")
    await store.set_weights({one.id: 2.0})

    def new(project_id: int, name: str) -> NewRun:
        return new_run(project_id, "flow", id=f"{project_id}-{name}", owner=None)

    await asyncio.gather(*(store.create_run(new(one.id, f"a{number}")) for number in range(5)))
    await asyncio.gather(*(store.create_run(new(other.id, f"a{number}")) for number in range(3)))
    for number in range(2):
        await store.create_run(new(one.id, f"b{number}"))
    mixed = [new(other.id, f"b{number}") for number in range(3)]
    mixed[1] = new_run(other.id, "flow", id="owned", owner="somebody")
    await asyncio.gather(*map(store.create_run, mixed))
    sql = "SELECT array_agg(pick ORDER BY pick) FROM queue WHERE project_id = $1"
    assert await session.fetchval(sql, one.id) == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
    assert await session.fetchval(sql, other.id) == [1.0, 2.0, 3.0, 4.0, 5.0]
    sql = "SELECT sum(data_bytes) FROM project_total WHERE project_id = $1"
    counted = await session.fetchval(sql, other.id)
    assert counted == sum(len(run.request) for run in [*mixed, *mixed])


WRITES = {
    "an append": lambda store, run: store.append(batch(run, 0, b"1")),
    "a run": lambda store, run: store.create_run(new_run(run.project_id, run.flow_id, id="new")),
    "a recording": lambda store, run: store.create_recording(
        new_recording(run.project_id, run.flow_id, trigger_type="recorded", trace_id="t", due_at="2026")
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", WRITES)
async def test_a_store_that_is_closed_writes_first_what_was_to_be_written(address: str, what: str) -> None:
    async with PostgresStore(address) as store:
        run = await make_run(store)
        writing = asyncio.create_task(WRITES[what](store, run))
        await asyncio.sleep(0)
    await writing


SESSION = "00000000-0000-4000-8000-000000000000"
INDEXES = {
    "": "run_by_project",
    "flow:one": "run_by_flow",
    "status:failed": "run_by_status",
    "flow:one trigger:api": "run_by_group",
    f"session:{SESSION}": "run_by_session",
    "error:x": "run_error_pkey",
}
"""Queries, and the index that each is to go by."""
# As many runs stand there before they are vacuumed: of the other project each has failed, and here none has.
MANY_RUNS = f"""
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
async def test_no_query_goes_through_the_runs_of_other_projects(session: asyncpg.Connection) -> None:
    found = {}
    await session.execute(MANY_RUNS)
    for text in INDEXES:
        query = parse_run_query(text, now=NOW)
        source = await perform(partial(source_of, 1, query, SEARCH_SQL, SearchLimits()), session)
        what = f"id, {source.condition}" if source.condition else "id"
        for newest in (True, False):
            sql, values = SEARCH_SQL.rows(source, what, 100, newest=newest)
            values |= source.values | {"since": "", "before": ABOVE_ALL}
            plan = await perform(fetch(f"EXPLAIN {sql}", **values), session)
            found[text, newest] = [
                name
                for (line,) in plan
                for name in line.split()
                if name.startswith("run_") and name != "run_error"
            ]
    assert found == {(text, newest): [index] for text, index in INDEXES.items() for newest in (True, False)}
