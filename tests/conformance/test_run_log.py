"""What every store must do with appends, all of which is stored or nothing, and tell of them."""

import asyncio
from decimal import Decimal

import msgspec
import pytest

from runglass.errors import PermanentStoreError, WrongExpectedVersion
from runglass.store.base import Store
from runglass.store.records import Checkpoint, StepRow
from tests.conformance.stores import batch, make_run, row, whole_trace
from tests.records import there


@pytest.mark.parametrize("wrong", [{"head": 0}, {"head": 1}, {"head": 3}, {"fence": 0}])
async def test_an_append_on_another_head_or_with_an_old_fence_is_refused_and_writes_nothing(
    store: Store, wrong: dict[str, int]
) -> None:
    run = await make_run(store)
    await store.append(batch(run, 0, b"one", b"two"))
    other = batch(run, 2, b"other", steps=[row(1)], checkpoints=[Checkpoint("s", "", b"{}")], status="failed")
    with pytest.raises(WrongExpectedVersion):
        await store.append(msgspec.structs.replace(other, **wrong))
    assert len(await store.events(run.no, after=0, limit_bytes=1000)) == 2
    assert await whole_trace(store, run.id) == (b'{"status":"running"}', [])
    assert await store.checkpoints(run.no) == []


async def test_refusing_one_append_does_not_disturb_those_that_share_its_commit(store: Store) -> None:
    runs = [await make_run(store, f"run-{number}") for number in range(20)]
    outcomes = await asyncio.gather(
        *(store.append(batch(run, run.no % 2, b"event", steps=[row(1)])) for run in runs),
        return_exceptions=True,
    )
    for run, outcome in zip(runs, outcomes, strict=True):
        refused = run.no % 2 == 1
        assert isinstance(outcome, WrongExpectedVersion) is refused
        assert len(await store.events(run.no, after=0, limit_bytes=1000)) == (0 if refused else 1)


async def test_what_a_run_spends_and_holds_back_is_added_to_its_project_once_and_stays_spent(
    store: Store,
) -> None:
    run = await make_run(store)
    tiny = Decimal("0.0000000000000000000000000000000001")
    # Of more digits than Python adds up.
    exact = Decimal("1.0000000000000000000000000000000001")

    async def money() -> tuple[Decimal, Decimal, bool]:
        project = there(await store.project(run.project_id))
        return project.spent_usd, project.reserved_usd, project.is_spent

    await store.set_budget(run.project_id, exact)
    assert there(await store.project(run.project_id)).budget_usd == exact
    first = batch(run, 0, b"1", spent_usd=Decimal(1), reserved_usd=exact)
    await store.append(first)
    with pytest.raises(WrongExpectedVersion):
        await store.append(first)
    assert await money() == (Decimal(1), exact, False)
    await store.append(batch(run, 1, b"2", spent_usd=tiny, reserved_usd=exact.copy_negate()))
    assert await money() == (exact, Decimal(0), True)
    await store.set_budget(run.project_id, None)
    assert await money() == (exact, Decimal(0), False)
    for usd in ("-0.01", "NaN"):
        with pytest.raises(PermanentStoreError):
            await store.append(batch(run, 2, b"3", spent_usd=Decimal(usd)))
    assert await money() == (exact, Decimal(0), False), "what was spent is not given back"
    assert await store.events(run.no, after=2, limit_bytes=1000) == []


async def test_checkpoints_live_as_long_as_the_run_or_until_their_step_runs_again(store: Store) -> None:
    run = await make_run(store)
    await store.append(batch(run, 0, b"1", checkpoints=[Checkpoint("s", "0,3", b'{"a":1}')]))
    assert await store.checkpoints(run.no) == [Checkpoint("s", "0,3", b'{"a":1}')]
    await store.append(batch(run, 1, b"2", status="paused"))
    assert len(await store.checkpoints(run.no)) == 1
    kept = [Checkpoint("s", "", b"1"), Checkpoint("t", "", b"3")]
    await store.append(batch(run, 2, b"3", checkpoints=kept))
    await store.append(batch(run, 3, b"4", checkpoints=[Checkpoint("s", "1", b"4")], dropped=["s"]))
    assert await store.checkpoints(run.no) == [Checkpoint("s", "1", b"4"), Checkpoint("t", "", b"3")]
    await store.append(batch(run, 4, b"5", status="completed", checkpoints=[Checkpoint("t", "", b"{}")]))
    assert await store.checkpoints(run.no) == []


async def test_large_checkpoints_of_steps_that_run_again_or_have_ended_go_bit_by_bit(
    store: Store,
) -> None:
    run = await make_run(store)
    large = b"0" * 700_000
    old = [Checkpoint("s", str(number), large) for number in range(3)]
    size = 3 * len(large)
    first = [*old, Checkpoint("t", "", b"1")]
    await store.append(batch(run, 0, b"1", checkpoints=first, open_bytes=size))
    before = await open_bytes_of(store, run.id)
    again = [Checkpoint("s", "1", b"2"), Checkpoint("s", "3", b"3")]
    await store.append(batch(run, 1, b"2", checkpoints=again, dropped=["s", "u"]))
    left = [*again, Checkpoint("t", "", b"1")]
    assert sorted(await store.checkpoints(run.no)) == left
    assert await store.checkpoint(run.no, "s", "0") is None
    assert await store.checkpoint(run.no, "s", "1") == b"2"
    assert await open_bytes_of(store, run.id) == before, "each counts until it is gone"
    # A checkpoint that took the place of a void one leaves two of them to delete.
    for rest in (len(large), 0):
        assert await store.drop_checkpoints(limit_rows=100, limit_bytes=1000)
        assert await open_bytes_of(store, run.id) == before - 2 * len(large) + rest
    await store.append(batch(run, 2, b"3", dropped=["s"]))
    assert await store.checkpoints(run.no) == [Checkpoint("t", "", b"1")]
    while await store.drop_checkpoints(limit_rows=1, limit_bytes=1):
        pass
    assert await store.checkpoints(run.no) == [Checkpoint("t", "", b"1")]
    more = size - await open_bytes_of(store, run.id)
    await store.append(batch(run, 3, b"4", checkpoints=old, open_bytes=more))
    await store.append(batch(run, 4, b"5", status="completed"))
    assert await store.checkpoints(run.no) == []
    # Each counts after the end of its run as well.
    for still in (2, 1, 0):
        assert await store.drop_checkpoints(limit_rows=100, limit_bytes=1000)
        assert (await store.ensure_project("acme", "demo")).data_bytes == still * len(large)


async def open_bytes_of(store: Store, run_id: str) -> int:
    return there(await store.run(run_id)).open_bytes


async def test_a_page_has_as_many_rows_as_fit_and_each_once(store: Store) -> None:
    run = await make_run(store)
    data = [b"%d" % number for number in range(1_100)]
    steps = [row(number // 2, attempt=1 + number % 2) for number in range(2, 1_102)]
    await store.append(batch(run, 0, *data, steps=steps))
    assert await store.events(run.no, after=0, limit_bytes=1 << 20) == [*enumerate(data, 1)]
    _, attempts = await store.attempt_page(run.no, after=(0, 0), limit_bytes=1 << 20)
    assert [StepRow(*attempt) for attempt in attempts] == steps
