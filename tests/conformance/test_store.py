"""What every store promises as a whole: opened again, closed, and looked over."""

import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from runglass.errors import StoreError
from runglass.store.base import Store
from runglass.store.records import Checkpoint, SpanCursor
from tests.conformance.stores import CALL, STORES, batch, make_run, row, run_with, store_kinds, whole_trace


@pytest.mark.parametrize("kind", store_kinds("pooler"))
async def test_a_closed_store_says_so_and_has_what_was_acknowledged_once_it_is_open_again(
    kind: str, tmp_path: Path
) -> None:
    async with STORES[kind](tmp_path) as store:
        run = await run_with(store, b"one", steps=[row(1)])
    with pytest.raises(StoreError, match="not open"):
        await store.projects()
    with pytest.raises(StoreError, match="not open"):
        await store.ensure_project("a", "b")
    async with STORES[kind](tmp_path) as store:
        assert await store.events(run.no, after=0, limit_bytes=100) == [(1, b"one")]
        assert len((await whole_trace(store, run.id))[1]) == 1


async def test_a_text_with_a_zero_byte_is_found_nowhere(store: Store) -> None:
    run = await run_with(store, b"one", steps=[row(1)])
    assert await store.run("run-1\0") is None
    assert await store.trace("\0", project_id=run.project_id, limit_bytes=9) is None
    assert await store.find_project("acme", "de\0mo") is None
    assert await store.find_flow(run.project_id, "\0") is None
    assert await store.attempt_keys(run.no, "s\0") == []
    assert await store.newest_position(run.no, "\0s") is None
    assert await store.session_runs(run.project_id, "\0", after="", limit=9) == []


async def test_the_overview_tells_what_has_not_ended(store: Store) -> None:
    before = await store.overview()
    assert (before.open_runs, before.waiting, before.oldest_waiting_s, before.leases) == ({}, 0, 0.0, 0)
    old = str(uuid.UUID(int=(int(time.time() * 1000) - 60_000) << 80))
    await make_run(store, old)
    await make_run(store, "run-2", project="other")
    await run_with(store, b"{}", run_id="run-3", status="completed", ended_at="2026")
    await run_with(store, b"{}", run_id="run-4", status="paused")
    waiting = await store.overview()
    assert waiting.waiting == 2
    assert 59 < waiting.oldest_waiting_s < 3600
    await store.hold_lease("me", until="2100-01-01T00:00:00.000Z", renew=False)
    await store.claim_runs("me", now="2026-01-01T00:00:00.000Z", limit=5)
    told = await store.overview()
    assert told.open_runs == {
        ("acme/demo", "pending"): 1,
        ("acme/demo", "paused"): 1,
        ("acme/other", "pending"): 1,
    }
    assert (told.waiting, told.oldest_waiting_s, told.leases) == (0, 0.0, 1)
    pool = store.pool
    assert pool is None or 0 <= pool.busy <= pool.open <= pool.most


async def test_a_write_that_is_tried_leaves_nothing_behind(store: Store) -> None:
    run = await make_run(store)
    for _ in range(3):
        await store.check_write()
    assert (await store.queued_runs(run.project_id, most=9)).waiting == 1


async def test_every_row_of_a_run_is_handed_out_as_it_is(store: Store) -> None:
    run, other = await make_run(store, call=CALL), await make_run(store, "run-2")
    for each in (run, other):
        await store.append(
            batch(each, 0, b"1", b"2", steps=[row(1)], checkpoints=[Checkpoint("s", "", b"{}")])
        )
    taken: list[tuple[str, Any]] = []
    assert await store.raw_rows(run.id, lambda table, values: taken.append((table, values)))
    tables = ["call", "checkpoint", "event", "event", "run", "run_request", "step"]
    assert sorted(table for table, _ in taken if table != "queue") == tables
    assert [values["data"] for table, values in taken if table == "event"] == [b"1", b"2"]
    kinds = (int, float, str, bytes, type(None))
    assert all(isinstance(value, kinds) for _, values in taken for value in values.values())
    assert not await store.raw_rows("unknown", lambda table, values: taken.clear())
    assert taken


async def test_runs_that_wait_to_be_sent_as_spans_are_counted_and_a_cursor_moves_once(store: Store) -> None:
    await store.span_cursors()
    triggers = ("api", "job", "recorded", "plain")
    runs = [await make_run(store, each, trigger_type=each) for each in triggers]
    for run, day in zip(runs, (1, 2, 1, 1), strict=True):
        ended_at = f"2026-01-0{day}T00:00:00.000Z"
        await store.append(batch(run, 0, b"1", status="completed", ended_at=ended_at))
    project_id = runs[0].project_id
    last = await store.last_change(project_id)
    assert await store.span_cursors() == [cursor := SpanCursor(project_id, 0, last)]
    overview = await store.overview()
    age_s = store.clock.now().timestamp() - 1767225600
    assert (overview.unsent, overview.unsent_deleted) == (2, 0)
    assert 0 <= age_s - overview.oldest_unsent_s < 60
    assert await store.purge_runs([run.no for run in runs[2:]]) == 2
    assert await store.move_span_cursor(cursor, last)
    assert not await store.move_span_cursor(cursor, last + 1), "another process was faster"
    assert not await store.move_span_cursor(SpanCursor(project_id + 1, 0, last), 1)
    assert await store.span_cursors() == []
    overview = await store.overview()
    assert (overview.unsent, overview.oldest_unsent_s, overview.unsent_deleted) == (0, 0, 0)
