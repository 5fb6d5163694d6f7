"""What every store must tell of the steps of a run: its trace, and every attempt."""

from typing import Any

import pytest

from runglass.store.base import Store
from runglass.store.records import AttemptKey, StepRow
from tests.conformance.stores import batch, make_run, row, whole_trace


@pytest.mark.parametrize("limit_bytes", [1, 30, 1000])
async def test_the_pages_of_a_trace_are_the_trace(store: Store, limit_bytes: int) -> None:
    run = await make_run(store)
    await store.append(batch(run, 0, b"1", steps=[row(position) for position in range(1, 11)]))
    summary, steps = await whole_trace(store, run.id)
    found: list[bytes] = []
    first = await store.trace(run.id, project_id=run.project_id, flow_id=run.flow_id, limit_bytes=limit_bytes)
    assert first is not None
    assert first[0] == await store.run(run.id)
    assert first[0].summary == summary
    page = first[1]
    while page:
        assert sum(len(data) for _, data in page[:-1]) < limit_bytes
        found += [data for _, data in page]
        page = await store.trace_page(run.no, after=page[-1][0], limit_bytes=limit_bytes)
    assert found == steps


async def test_the_trace_of_a_run_of_another_project_is_not_read(store: Store) -> None:
    run = await make_run(store)
    await store.append(batch(run, 0, b"1", steps=[row(1)]))
    own: dict[str, Any] = {"project_id": run.project_id, "limit_bytes": 1000}
    assert await store.trace(run.id, **own) is not None
    assert await store.trace(run.id, **own, flow_id=run.flow_id) is not None
    assert await store.trace("unknown", **own) is None
    assert await store.trace(run.id, **own, flow_id="another") is None
    assert await store.trace(run.id, **(own | {"project_id": run.project_id + 1})) is None


async def test_attempts_are_found_by_key_and_read_in_parts(store: Store) -> None:
    run = await make_run(store)
    await store.append(
        batch(run, 0, b"1", steps=[row(1, status="failed"), row(2), row(1, attempt=2), row(3, step_id="t")])
    )
    keys = await store.attempt_keys(run.no, "s")
    assert keys == [AttemptKey(1, "", 1), AttemptKey(1, "", 2), AttemptKey(2, "", 1)]
    assert await store.attempt_keys(run.no, "other") == []
    # The second attempt has become an earlier one by the time its data is read.
    await store.append(batch(run, 1, b"2", steps=[row(1, attempt=3)]))
    wanted = [keys[2], keys[1], keys[0]]
    data = [b"2.1 running", b"1.2 running", b"1.1 failed"]
    assert await store.attempt_data(run.no, wanted, limit_bytes=1000) == data
    assert await store.attempt_data(run.no, wanted, limit_bytes=12) == data[:2]
    assert await store.attempt_data(run.no, wanted, limit_bytes=1) == data[:1]
    assert await store.attempt_data(run.no, [], limit_bytes=1000) == []


async def test_all_attempts_of_a_run_come_in_pages_in_order_of_position_and_number(store: Store) -> None:
    run, other = await make_run(store), await make_run(store, "run-2")
    await store.append(batch(other, 0, b"1", steps=[row(1)]))
    steps = [row(1, status="failed"), row(2, step_id="t"), row(1, attempt=2), row(3)]
    await store.append(batch(run, 0, b"1", steps=steps))
    found, whole = await store.attempt_page(run.no, after=(0, 0), limit_bytes=1000)
    assert (found.id, found.head, found.status) == (run.id, 1, "running")
    assert [StepRow(*attempt)[:5] for attempt in whole] == [
        (1, "s", "", 1, "failed"),
        (1, "s", "", 2, "running"),
        (2, "t", "", 1, "running"),
        (3, "s", "", 1, "running"),
    ]
    assert [attempt[-1] for attempt in whole] == [
        b"1.1 failed",
        b"1.2 running",
        b"2.1 running",
        b"3.1 running",
    ]
    pages, after = [], (0, 0)
    while page := (await store.attempt_page(run.no, after=after, limit_bytes=12))[1]:
        pages.append(len(page))
        assert page == whole[sum(pages[:-1]) : sum(pages)]
        after = (page[-1][0], page[-1][3])
    assert pages == [2, 2]
    # An attempt that has become an earlier one since is not read again, and the one behind it is.
    await store.append(batch(run, 1, b"2", steps=[row(3, attempt=2)]))
    found, rest = await store.attempt_page(run.no, after=after, limit_bytes=1000)
    assert (found.head, [attempt[-1] for attempt in rest]) == (2, [b"3.2 running"])


async def test_open_steps_are_those_whose_latest_attempt_did_not_end_well(store: Store) -> None:
    run = await make_run(store)
    await store.append(
        batch(
            run,
            0,
            b"1",
            steps=[row(1, status="completed"), row(2), row(3, status="skipped"), row(4, status="failed")],
        )
    )
    steps, last = await store.open_steps(run.no)
    assert [step.position for step in steps] == [2, 4]
    assert last == 4


async def test_the_last_position_is_that_of_the_step_that_began_last(store: Store) -> None:
    run, other = await make_run(store), await make_run(store, "run-2")
    assert await store.last_position(run.no) == 0
    await store.append(batch(run, 0, b"1", steps=[row(1, status="failed"), row(2), row(1, attempt=2)]))
    await store.append(batch(other, 0, b"1", steps=[row(1), row(2), row(3)]))
    assert await store.last_position(run.no) == 2
    assert await store.last_position(other.no + 1) == 0
