"""What every store must do when runs and their content are to go."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from runglass.errors import RunPurged, WrongExpectedVersion
from runglass.log.content import strip_event, strip_step
from runglass.log.events import (
    FlowCompleted,
    KnownEvent,
    RunStarted,
    StepCompleted,
    StepStarted,
    encode_event,
)
from runglass.log.trace import StepTrace
from runglass.store.base import Store
from runglass.store.records import AttemptKey, ContentPlace, IdempotencyKey, RunRecord, StepRow
from runglass.wire.query import RunQuery
from tests.conformance.stores import batch, make_run, purge_all, row, run_with
from tests.records import there

SECRET = b"sesame"
RUN: dict[str, Any] = {"execution_id": "r", "at": "2026-01-01T00:00:00.000Z"}


async def ended_run(
    store: Store,
    run_id: str = "run-1",
    *,
    ended_at: str = "2026-01-01T00:00:00.000Z",
    events: int = 10,
    size: int = 5,
    **more: Any,
) -> RunRecord:
    """A run whose log has so many events before the last one, each of so many bytes."""
    run = await make_run(store, run_id, **more)
    steps = [row(position) for position in range(1, 11)]
    told = [b"x" * size] * events
    await store.append(batch(run, 0, *told, steps=steps, owed=[(1, b"owed")], log_bytes=events * size + 50))
    again = [row(1, attempt=2, status="completed")]
    await store.append(
        batch(run, events, b"last", status="completed", steps=again, ended_at=ended_at, result=b"r")
    )
    return there(await store.run(run_id))


async def rows_left(store: Store, run_no: int) -> int:
    """How many rows of the run can still be read by its number."""
    count = len(await store.steps(run_no)) + len(await store.attempt_keys(run_no, "s"))
    for seq in range(12):
        count += await store.owed(run_no, seq) is not None
    return count + (await store.outcome(run_no) != (None, None))


async def test_a_purged_run_is_gone_at_once_and_never_read_in_part_while_its_rows_go(store: Store) -> None:
    run, other = [await ended_run(store, name, session_id="session") for name in ("run-1", "run-2")]
    assert await store.purge_runs([run.no])
    assert await store.run("run-1") is None
    assert await store.trace("run-1", project_id=run.project_id, limit_bytes=1000) is None
    listed = (await store.runs(run.project_id, RunQuery(), limit=10)).runs
    assert [listing.id for listing in listed] == [other.id]
    assert [each.id for each in await store.session_runs(run.project_id, "session", after="", limit=9)] == [
        other.id
    ]
    assert await rows_left(store, run.no) > 0
    assert not await store.purge_runs([run.no]), "it is there no more"
    with pytest.raises(WrongExpectedVersion):
        await store.append(batch(run, 11, b"more"))
    assert await store.claim_runs("me", now="2026-01-01T00:00:00.000Z", limit=9) == []
    assert await store.claim_waiting(run) is None
    assert len(await store.events(run.no, after=0, limit_bytes=1000)) == 11, "what is left can be read on"
    assert not await store.purge_rows([run.no], limit_rows=4, limit_bytes=1000)
    with pytest.raises(RunPurged):
        await store.events(run.no, after=0, limit_bytes=1000)
    with pytest.raises(RunPurged):
        await store.trace_page(run.no, after=0, limit_bytes=1000)
    await purge_all(store)
    with pytest.raises(RunPurged):
        await store.events(run.no, after=11, limit_bytes=1000)
    with pytest.raises(RunPurged):
        await store.attempt_data(run.no, [AttemptKey(1, "", 1)], limit_bytes=1000)
    # Giving back its space comes to an end.
    gives_back = [await store.compact(limit_bytes=1 << 16) for _ in range(100)]
    assert not gives_back[-1]


@pytest.mark.parametrize(
    ("limits", "least"), [({}, 1), ({"limit_rows": 3}, 8), ({"limit_rows": 1}, 23), ({"limit_bytes": 1}, 20)]
)
async def test_the_rows_of_a_purged_run_go_in_bites_and_no_others_go(
    store: Store, limits: dict[str, int], least: int
) -> None:
    run, other = await ended_run(store), await ended_run(store, "run-2")
    before = await rows_left(store, other.no)
    assert await store.purge_runs([run.no])
    assert least <= await purge_all(store, **limits) <= 30
    assert await rows_left(store, run.no) == 0
    assert await rows_left(store, other.no) == before
    assert len(await store.events(other.no, after=0, limit_bytes=1000)) == 11


async def data_bytes(store: Store, run: RunRecord) -> int:
    return there(await store.project(run.project_id)).data_bytes


async def test_many_runs_are_purged_at_once_and_those_that_go_on_are_not(store: Store) -> None:
    ended = [await ended_run(store, f"run-{number}") for number in range(3)]
    live = [await make_run(store, status) for status in ("pending", "running", "paused")]
    for run in live[1:]:
        await store.append(batch(run, 0, b"event", status=run.id, log_bytes=7))
    before = await data_bytes(store, live[0])
    numbers = [*(run.no for run in live), ended[0].no, ended[1].no, 1 << 60]
    assert await store.purge_runs(numbers) == 2
    gone = sum(run.log_bytes + run.open_bytes for run in ended[:2])
    assert before - await data_bytes(store, live[0]) == gone
    assert sorted(await store.purged_runs(limit=9)) == sorted(run.no for run in ended[:2])
    assert await store.purged_runs(after=ended[0].no, limit=9) == [ended[1].no]
    assert await store.purged_runs(limit=1) == [ended[0].no]
    # Also of numbers that it should not have been given.
    assert await store.purge_rows(numbers, limit_rows=1000, limit_bytes=1 << 20) == len(numbers)
    assert await store.purged_runs(limit=9) == []
    assert [await rows_left(store, run.no) for run in ended[:2]] == [0, 0]
    assert await rows_left(store, ended[2].no) > 0
    assert len(await store.events(ended[2].no, after=0, limit_bytes=1000)) == 11
    assert [there(await store.run(run.id)).status for run in live] == [run.id for run in live]
    left = [len(await store.events(run.no, after=0, limit_bytes=1000)) for run in live]
    assert left == [0, 1, 1]


@pytest.mark.parametrize("limits", [(33, 1 << 20), (1000, 330)])
async def test_the_rows_of_as_many_purged_runs_go_together_as_fit(
    store: Store, limits: tuple[int, int]
) -> None:
    large: dict[str, Any] = {"size": 100} if limits[0] == 1000 else {"events": 40}
    runs = [await ended_run(store, f"run-{number}") for number in range(4)]
    runs += [await ended_run(store, "large", **large), await ended_run(store, "last")]
    numbers = [run.no for run in runs]
    assert await store.purge_runs(numbers) == 6
    through: list[int] = []
    while sum(through) < 6:
        left = numbers[sum(through) :]
        through.append(await store.purge_rows(left, limit_rows=limits[0], limit_bytes=limits[1]))
        assert await store.purged_runs(limit=9) == numbers[sum(through) :]
    assert [count for count in through if count] == [3, 1, 1, 1]
    assert through.count(0) > 0, "the large one goes bit by bit"
    assert [await rows_left(store, number) for number in numbers] == [0] * 6


async def test_a_purged_run_stays_paid_for_and_its_number_is_never_used_again(store: Store) -> None:
    """A reader that has the number would go on in another run's log."""
    run = await ended_run(store)
    assert await store.purge_runs([run.no])
    during = await make_run(store, "run-2")
    assert during.no > run.no
    await purge_all(store)
    await store.append(batch(during, 0, b"only", status="cancelled", spent_usd=Decimal(7)))
    assert await store.purge_runs([during.no])
    await purge_all(store)
    after = await make_run(store, "run-3")
    assert after.no > during.no
    assert await store.events(after.no, after=0, limit_bytes=1000) == []
    assert there(await store.project(run.project_id)).spent_usd == 7


async def test_calls_of_a_purged_run_are_forgotten_with_their_answers(store: Store) -> None:
    one, two = [await ended_run(store, name, call=IdempotencyKey(name, b"d")) for name in ("one", "two")]
    for run in (one, two):
        await store.answer_call(run.project_id, run.id, status=200, answer=b"answer")
    assert await store.purge_runs([one.no])
    assert await store.call(one.project_id, "one") is None
    assert await store.call(one.project_id, "two") is not None


async def test_ended_runs_are_found_by_flow_and_end_oldest_first(store: Store) -> None:
    late = await ended_run(store, "run-1", ended_at="2026-01-03T00:00:00.000Z")
    early = await ended_run(store, "run-2", ended_at="2026-01-01T00:00:00.000Z")
    await ended_run(store, "run-3", slug="other")
    await run_with(store, b"event", run_id="run-4")

    async def found(before: str, *, with_content: bool = False, limit: int = 9) -> list[int]:
        return await store.ended_runs(late.flow_id, before=before, with_content=with_content, limit=limit)

    assert await found("2026-01-09") == [early.no, late.no]
    assert await found("2026-01-09", limit=1) == [early.no]
    assert await found("2026-01-02") == [early.no]
    assert await found("2026-01-01T00:00:00.000Z") == [early.no]
    assert await found("2025-12-31T23:59:59.999Z") == []
    assert await found("2026-01-09", with_content=True) == [early.no, late.no]
    assert await store.purge_runs([early.no])
    assert await found("2026-01-09") == [late.no]


async def run_with_content(store: Store, run_id: str = "run-1") -> RunRecord:
    """A run of ten steps, the first of them in two attempts, with a secret in each."""
    step: dict[str, Any] = {**RUN, "step_id": "s", "step_index": 0, "attempt": 1}
    output: Any = msgspec.Raw(b'{"text":"sesame"}')
    events: list[KnownEvent] = [
        RunStarted(**RUN, run_id="r", flow_id="f", step_count=1, trigger_type="api", version=1),
        *[StepStarted(**step) for _ in range(10)],
        *[StepCompleted(**step, output=output, duration_ms=1) for _ in range(10)],
        FlowCompleted(**RUN, run_id="r", result=output),
    ]
    data = msgspec.json.encode(StepTrace(step_id="s", output_context=output, cost_usd="0.5"))
    steps = [StepRow(position, "s", "", 1, "completed", data) for position in range(1, 11)]
    steps.append(StepRow(1, "s", "", 2, "completed", data))
    told = [encode_event(event) for event in events]
    return await run_with(
        store,
        *told,
        run_id=run_id,
        log_bytes=sum(map(len, told)) + sum(len(each.data) for each in steps),
        status="completed",
        steps=steps,
        result=b'{"text":"sesame"}',
        error=b'{"code":"X","message":"sesame"}',
        ended_at="2026-01-01T00:00:00.000Z",
    )


async def all_of(store: Store, run_no: int) -> list[bytes]:
    events = [data for _, data in await store.events(run_no, after=0, limit_bytes=1 << 20)]
    _, attempts = await store.attempt_page(run_no, after=(0, 0), limit_bytes=1 << 20)
    return events + [data for *_, data in attempts]


@pytest.mark.parametrize(("limit_rows", "bites"), [(1000, 1), (5, 7), (1, 34)])
async def test_content_is_taken_out_in_bites_and_all_else_stays(
    store: Store, limit_rows: int, bites: int
) -> None:
    run, other = await run_with_content(store), await run_with_content(store, "run-2")
    before, theirs = await all_of(store, run.no), await all_of(store, other.no)
    place: ContentPlace | None = None
    first = await store.strip_content([run.no], None, limit_rows=99, limit_bytes=1)
    assert first == (0, ContentPlace("event", (1,))), "a bite is bounded by bytes, too"
    taken = 0
    while True:
        through, place = await store.strip_content(
            [run.no], place, limit_rows=limit_rows, limit_bytes=1 << 20
        )
        taken += 1
        if through:
            break
        due = await store.ended_runs(run.flow_id, before="2027", with_content=True, limit=9)
        assert due == [run.no, other.no], "it is not done, and would be taken up again"
    assert taken == bites
    expected = [strip_event(data) for data in before[:22]] + [strip_step(data) for data in before[22:]]
    assert await all_of(store, run.no) == expected
    assert SECRET not in b"".join(expected)
    assert await store.outcome(run.no) == (None, b'{"code":"X"}')
    assert await all_of(store, other.no) == theirs
    due = await store.ended_runs(run.flow_id, before="2027", with_content=True, limit=9)
    assert due == [other.no]
    due = await store.ended_runs(run.flow_id, before="2027", with_content=False, limit=9)
    assert due == [run.no, other.no]


async def test_content_is_taken_out_of_many_runs_at_once_as_far_as_they_fit(store: Store) -> None:
    runs = [await run_with_content(store, f"run-{number}") for number in range(4)]
    numbers = [run.no for run in runs]
    before = await all_of(store, numbers[3])
    counted = await data_bytes(store, runs[0])
    assert await store.strip_content(numbers, None, limit_rows=66, limit_bytes=1 << 20) == (3, None)
    due = await store.ended_runs(runs[0].flow_id, before="2027", with_content=True, limit=9)
    assert due == [numbers[3]]
    saved = 0
    for run in runs[:3]:
        assert SECRET not in b"".join(await all_of(store, run.no))
        assert await store.outcome(run.no) == (None, b'{"code":"X"}')
        found = there(await store.run(run.id))
        saved += run.log_bytes + run.open_bytes - found.log_bytes - found.open_bytes
    assert counted - await data_bytes(store, runs[0]) == saved > 0
    assert await all_of(store, numbers[3]) == before
    # One that has been seen to, or is gone, is none that has to be.
    assert await store.purge_runs([numbers[0]]) == 1
    assert await store.strip_content(numbers[:2], None, limit_rows=1, limit_bytes=1) == (2, None)
