"""What PostgreSQL is asked for by appends and by runs that begin: no more than is needed, and together."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest

from runglass.errors import DuplicateIdempotencyKey, PermanentStoreError, StoreError
from runglass.store.postgres.append import LONG_S, AppendQueue
from runglass.store.postgres.connections import Connections
from runglass.store.postgres.run_creation import RunRequests
from runglass.store.postgres.store import PostgresStore
from runglass.store.records import Append, IdempotencyKey, NewRun, RunRecord
from tests.conformance.stores import batch, make_run
from tests.fakes import in_virtual_time
from tests.postgres_proxy import cutting_proxy
from tests.postgres_server import connected
from tests.records import new_run, there

# Statements are counted, whether they find rows or not.
COUNT = """
CREATE TABLE seen (name text);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO seen VALUES (TG_TABLE_NAME || ' ' || lower(TG_OP));
  RETURN NULL;
END
$$;
CREATE TRIGGER see AFTER INSERT OR UPDATE OR DELETE ON queue FOR EACH STATEMENT EXECUTE FUNCTION see();
CREATE TRIGGER see AFTER INSERT OR UPDATE OR DELETE ON project_total
FOR EACH STATEMENT EXECUTE FUNCTION see();
CREATE TRIGGER see AFTER INSERT OR UPDATE OR DELETE ON run FOR EACH STATEMENT EXECUTE FUNCTION see();
"""


@pytest.fixture
async def db(store: PostgresStore, address: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(address)
    await connection.execute(COUNT)
    yield connection
    await connection.close()


async def seen(db: asyncpg.Connection) -> set[str]:
    return {str(row[0]) for row in await db.fetch("DELETE FROM seen RETURNING name")}


@pytest.mark.slow
async def test_an_append_in_the_middle_of_a_run_changes_its_row_and_looks_at_no_queue(
    store: PostgresStore, db: asyncpg.Connection
) -> None:
    run = await make_run(store)
    await store.append(batch(run, 0, b"1", owner="me"))
    await seen(db)
    await store.append(batch(run, 1, b"2", owner="me"))
    assert await seen(db) == {"run update"}
    await store.append(batch(run, 2, b"3", owner="me", log_bytes=5))
    assert await seen(db) == {"run update", "project_total insert", "project_total update"}


class Held:
    """A database that answers a statement when it is told to; all that is asked for is written."""

    def __init__(self) -> None:
        self.statements: list[tuple[list[int], asyncio.Event]] = []
        self._sent = asyncio.Condition()

    async def repeat(self, work: Callable[["Held"], Awaitable[Any]], *, patience_s: float) -> Any:
        return await work(self)

    async def fetch(self, _: str, *values: Any) -> list[tuple[int]]:
        runs = [int(batch[0]) for batch in values[1]]
        self.statements.append((runs, answered := asyncio.Event()))
        async with self._sent:
            self._sent.notify_all()
        await answered.wait()
        return [(run,) for run in runs]

    async def has_sent(self, statements: int) -> None:
        async with self._sent:
            await self._sent.wait_for(lambda: len(self.statements) >= statements)

    def answer(self) -> None:
        for _, answered in self.statements:
            answered.set()


def queue() -> tuple[Held, AppendQueue]:
    held = Held()
    return held, AppendQueue(cast(Connections, held), patience_s=5.0)


@in_virtual_time
async def test_a_statement_that_takes_long_holds_up_no_other_run() -> None:
    held, appends = queue()
    first = asyncio.create_task(appends.append(append_to(1)))
    await held.has_sent(1)
    began_s = asyncio.get_running_loop().time()
    others = [asyncio.create_task(appends.append(append_to(run))) for run in (2, 1)]
    await held.has_sent(2)
    assert asyncio.get_running_loop().time() - began_s == pytest.approx(LONG_S)
    assert [runs for runs, _ in held.statements] == [[1], [2]]
    held.answer()
    await held.has_sent(3)
    held.answer()
    await asyncio.gather(first, *others)
    await appends.aclose()


def append_to(run_no: int) -> Append:
    return Append(run_no=run_no, head=0, fence=1, events=[b"{}"], status="running", summary=b"{}")


class Requests:
    """A database with the requests of the runs 1 to 9, which says what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.fault: StoreError | None = None

    async def read(self, work: Any) -> Any:
        return await work(self)

    async def fetch(self, _: str, runs: list[int]) -> list[tuple[int, bytes]]:
        self.asked.append(sorted(runs))
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        return [(run, b"request %d" % run) for run in runs if run < 10]


async def test_those_that_are_asked_for_in_one_turn_are_read_by_one_statement() -> None:
    rows = Requests()
    reads = RunRequests(cast(Connections, rows))
    asking = [asyncio.create_task(reads.read(run)) for run in (1, 2, 3, 10)]
    await asyncio.sleep(0)
    asking[0].cancel()
    assert await asyncio.gather(*asking[1:]) == [b"request 2", b"request 3", None]
    assert await reads.read(4) == b"request 4"
    assert rows.asked == [[1, 2, 3, 10], [4]]


READ = "FROM run WHERE id = $1"


@pytest.mark.slow
@pytest.mark.parametrize("is_pooler", [False, True])
async def test_a_statement_is_prepared_once_for_a_connection_but_never_by_way_of_a_pooler(
    address: str, *, is_pooler: bool
) -> None:
    # Sockets have short names.
    with tempfile.TemporaryDirectory(prefix="runglass-") as folder:
        async with (
            cutting_proxy(address, Path(folder), names_itself=is_pooler) as (proxy, by_way_of_it),
            PostgresStore(by_way_of_it) as store,
        ):
            run = await make_run(store)
            for seq in range(3):
                await store.append(batch(run, seq, b"1"))
                assert there(await store.run(run.id)).head == seq + 1
            prepared = [statement for statement in proxy.prepared if statement.endswith(READ)]
            assert len(prepared) == (0 if is_pooler else 1)
            assert bool(proxy.prepared) is not is_pooler


RUNS = 30


@pytest.mark.slow
async def test_one_that_cannot_be_created_leaves_those_beside_it_alone(store: PostgresStore) -> None:
    first = await make_run(store)
    new = [new_run(first.project_id, first.flow_id, id=f"new-{number}") for number in range(RUNS)]
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
    store: PostgresStore, address: str
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
    async with connected(address) as connection:
        sql = "SELECT array_agg(pick ORDER BY pick) FROM queue WHERE project_id = $1"
        assert await connection.fetchval(sql, one.id) == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
        assert await connection.fetchval(sql, other.id) == [1.0, 2.0, 3.0, 4.0, 5.0]
        counted = await connection.fetchval(
            "SELECT sum(data_bytes) FROM project_total WHERE project_id = $1", other.id
        )
    assert counted == sum(len(run.request) for run in [*mixed, *mixed])
