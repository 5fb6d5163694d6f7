"""What every store must know of runs that are sent on as spans: how far each project has come."""

from runglass.store.base import Store
from runglass.store.records import RunRecord, SpanCursor
from tests.conformance.stores import batch, make_run
from tests.records import new_run

ENDED_AT = "2026-01-01T00:00:00.000Z"


async def ended(store: Store, run_id: str, *, project: str = "demo", trigger: str = "api") -> RunRecord:
    made = await make_run(store, f"{run_id}-first", project=project)
    run = await store.create_run(new_run(made.project_id, made.flow_id, id=run_id, trigger_type=trigger))
    await store.append(batch(run, 0, b"1", status="completed", ended_at=ENDED_AT))
    return run


async def cursors(store: Store) -> dict[int, int]:
    return {cursor.project_id: cursor.change_no for cursor in await store.span_cursors()}


async def unsent(store: Store) -> tuple[int, int]:
    overview = await store.overview()
    return overview.unsent, overview.unsent_deleted


async def test_what_ended_before_the_first_look_counts_as_sent(store: Store) -> None:
    before = await ended(store, "before")
    assert await cursors(store) == {}
    assert await unsent(store) == (0, 0)
    sent = await store.last_change(before.project_id)
    await ended(store, "after")
    assert await cursors(store) == {before.project_id: sent}
    assert await unsent(store) == (1, 0)


async def test_of_a_project_that_is_made_later_every_run_is_sent(store: Store) -> None:
    assert await cursors(store) == {}, "nothing is there yet, and sending has begun"
    run = await ended(store, "first")
    assert await cursors(store) == {run.project_id: 0}
    other = await ended(store, "other", project="another")
    assert await cursors(store) == {run.project_id: 0, other.project_id: 0}


async def test_a_cursor_moves_once_and_from_where_it_was(store: Store) -> None:
    await store.span_cursors()
    run = await ended(store, "run")
    (cursor,) = await store.span_cursors()
    last = await store.last_change(run.project_id)
    assert await store.move_span_cursor(cursor, last)
    assert not await store.move_span_cursor(cursor, last + 1), "another process was faster"
    assert await cursors(store) == {}
    assert not await store.move_span_cursor(SpanCursor(run.project_id + 1, 0), 1)


async def test_runs_that_wait_are_counted_with_the_age_of_the_next(store: Store) -> None:
    await store.span_cursors()
    run = await ended(store, "one")
    await ended(store, "two")
    await ended(store, "seen", trigger="recorded")
    assert await cursors(store) == {run.project_id: 0}
    overview = await store.overview()
    age_s = store.clock.now().timestamp() - 1767225600
    assert (overview.unsent, overview.unsent_deleted) == (2, 0)
    assert 0 <= age_s - overview.oldest_unsent_s < 60
    (cursor,) = await store.span_cursors()
    assert await store.move_span_cursor(cursor, await store.last_change(run.project_id))
    overview = await store.overview()
    assert (overview.unsent, overview.oldest_unsent_s) == (0, 0)


async def test_a_run_that_is_deleted_before_it_was_sent_is_counted(store: Store) -> None:
    gone_before = await ended(store, "before")
    await store.span_cursors()
    run = await ended(store, "sent")
    (cursor,) = await store.span_cursors()
    assert await store.move_span_cursor(cursor, await store.last_change(run.project_id))
    unsent_runs = [await ended(store, name) for name in ("one", "two")]
    seen = await ended(store, "seen", trigger="plain")
    assert await store.purge_runs([each.no for each in (gone_before, run, seen, *unsent_runs)]) == 5
    assert await unsent(store) == (0, 2)
