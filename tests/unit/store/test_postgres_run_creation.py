"""Runs that are created at the same time: together, and each with an answer of its own."""

import asyncio

import asyncpg
import pytest

from runglass.errors import DuplicateIdempotencyKey, PermanentStoreError
from runglass.store.postgres.store import PostgresStore
from runglass.store.records import IdempotencyKey, NewRun, RunRecord
from tests.conformance.stores import make_run
from tests.records import new_run

pytestmark = pytest.mark.slow

RUNS = 30


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
    connection = await asyncpg.connect(address)
    try:
        sql = "SELECT array_agg(pick ORDER BY pick) FROM queue WHERE project_id = $1"
        assert await connection.fetchval(sql, one.id) == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
        assert await connection.fetchval(sql, other.id) == [1.0, 2.0, 3.0, 4.0, 5.0]
        counted = await connection.fetchval(
            "SELECT sum(data_bytes) FROM project_total WHERE project_id = $1", other.id
        )
    finally:
        await connection.close()
    assert counted == sum(len(run.request) for run in [*mixed, *mixed])
