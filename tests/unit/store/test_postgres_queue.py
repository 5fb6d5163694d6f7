"""The order of the runs that wait in PostgreSQL: in turns between projects, whatever the number of one."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from runglass.store.postgres.store import PostgresStore
from tests.conformance.stores import batch, make_run

pytestmark = pytest.mark.slow


@pytest.fixture
async def store(address: str) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(address) as opened:
        await opened.hold_lease("me", until="2999-01-01", renew=False)
        yield opened


async def enqueue(store: PostgresStore, project: str, *numbers: int) -> int:
    runs = [await make_run(store, f"{project}-{number}", project=project) for number in numbers]
    return runs[0].project_id


async def claim(store: PostgresStore, limit: int, *, most_each: int | None = None) -> list[str]:
    claimed = await store.claim_runs("me", now="2026-01-01", limit=limit, most_each=most_each)
    return [run.id for run in claimed]


async def test_projects_take_turns_whoever_came_first(store: PostgresStore) -> None:
    await enqueue(store, "a", *range(6))
    await enqueue(store, "b", *range(2))
    assert await claim(store, 5) == ["a-0", "b-0", "a-1", "b-1", "a-2"]
    await enqueue(store, "c", 0)
    assert "c-0" in await claim(store, 2), "who comes anew does not wait behind the line of another"


async def test_a_project_of_more_weight_has_more_turns(store: PostgresStore) -> None:
    heavy = await enqueue(store, "heavy", 0)
    await store.set_weights({heavy: 3.0})
    await enqueue(store, "heavy", *range(1, 9))
    await enqueue(store, "light", *range(4))
    first = await claim(store, 8)
    assert sum(run_id.startswith("heavy") for run_id in first) in (6, 7)


async def test_who_was_alone_has_no_debt_and_who_was_away_no_credit(store: PostgresStore) -> None:
    for number in range(8):
        await enqueue(store, "busy", number)
        assert await claim(store, 1) == [f"busy-{number}"]
    await enqueue(store, "new", *range(4))
    await enqueue(store, "busy", *range(8, 12))
    first = await claim(store, 4)
    assert 1 <= sum(run_id.startswith("busy") for run_id in first) <= 3


async def test_runs_that_were_begun_come_before_those_that_were_not(store: PostgresStore) -> None:
    await enqueue(store, "a", *range(3))
    assert await claim(store, 1) == ["a-0"]
    begun = await store.run("a-0")
    assert begun is not None
    await store.append(batch(begun, 0, b"1", owner="me"))
    await store.release_run("a-0", "me")
    await enqueue(store, "b", 0)
    assert (await claim(store, 2))[0] == "a-0"


async def test_a_project_with_all_its_runs_going_on_does_not_keep_others_waiting(
    store: PostgresStore,
) -> None:
    await enqueue(store, "full", *range(5))
    await enqueue(store, "other", *range(2))
    assert await claim(store, 3, most_each=1) == ["full-0", "other-0"]
    assert await claim(store, 3, most_each=1) == []
    assert await claim(store, 3, most_each=2) == ["full-1", "other-1"]


async def test_two_claims_at_once_see_no_room_twice(store: PostgresStore, address: str) -> None:
    await enqueue(store, "a", *range(20))
    async with PostgresStore(address) as other:
        await other.hold_lease("other", until="2999-01-01", renew=False)
        claims = await asyncio.gather(
            *(
                each.claim_runs(owner, now="2026-01-01", limit=3, most_each=5)
                for each, owner in [(store, "me"), (other, "other")] * 4
            )
        )
    assert sum(map(len, claims)) == 5
