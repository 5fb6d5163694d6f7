"""The order of the runs that wait: in turns between projects, whatever the number of one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runglass.store.base import Store
from tests.conformance.stores import ALL_STORES, batch, make_run, store_kinds


@pytest.fixture(params=store_kinds())
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with ALL_STORES[request.param](tmp_path) as opened:
        assert await opened.hold_lease("me", until="2999-01-01", renew=False)
        yield opened


async def enqueue(store: Store, project: str, *numbers: int) -> int:
    runs = [await make_run(store, f"{project}-{number}", project=project) for number in numbers]
    return runs[0].project_id


async def claim(store: Store, limit: int, *, most_each: int | None = None) -> list[str]:
    claimed = await store.claim_runs("me", now="2026-01-01", limit=limit, most_each=most_each)
    return [run.id for run in claimed]


async def test_projects_take_turns_whoever_came_first(store: Store) -> None:
    await enqueue(store, "a", *range(6))
    await enqueue(store, "b", *range(2))
    assert await claim(store, 5) == ["a-0", "b-0", "a-1", "b-1", "a-2"]
    await enqueue(store, "c", 0)
    assert "c-0" in await claim(store, 2), "who comes anew does not wait behind the line of another"


async def test_a_project_of_more_weight_has_more_turns(store: Store) -> None:
    heavy = await enqueue(store, "heavy", 0)
    await store.set_weights({heavy: 3.0})
    await enqueue(store, "heavy", *range(1, 9))
    await enqueue(store, "light", *range(4))
    first = await claim(store, 8)
    assert sum(run_id.startswith("heavy") for run_id in first) in (6, 7)


async def test_who_was_alone_has_no_debt_and_who_was_away_no_credit(store: Store) -> None:
    for number in range(8):
        await enqueue(store, "busy", number)
        assert await claim(store, 1) == [f"busy-{number}"]
    await enqueue(store, "new", *range(4))
    await enqueue(store, "busy", *range(8, 12))
    first = await claim(store, 4)
    assert 1 <= sum(run_id.startswith("busy") for run_id in first) <= 3


@pytest.mark.parametrize("most_each", [None, 9])
async def test_a_claim_for_one_project_takes_no_run_that_another_one_has_lost(
    store: Store, most_each: int | None
) -> None:
    lost = await enqueue(store, "lost", *range(2))
    assert await store.hold_lease("gone", until="2027-01-01", renew=False)
    assert len(await store.claim_runs("gone", now="2026-01-01", limit=2, project_id=lost)) == 2
    own = await enqueue(store, "own", *range(2))
    for project_id, expected in ((own, ["own-0"]), (own, ["own-1"]), (own, []), (lost, ["lost-0"])):
        claimed = await store.claim_runs(
            "me", now="2028-01-01", limit=1, project_id=project_id, most_each=most_each
        )
        assert [run.id for run in claimed] == expected


async def test_runs_that_were_begun_come_before_those_that_were_not(store: Store) -> None:
    await enqueue(store, "a", *range(3))
    assert await claim(store, 1) == ["a-0"]
    begun = await store.run("a-0")
    assert begun is not None
    await store.append(batch(begun, 0, b"1", owner="me"))
    await store.release_run("a-0", "me")
    await enqueue(store, "b", 0)
    assert (await claim(store, 2))[0] == "a-0"
