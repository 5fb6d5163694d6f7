"""What every store must do, whatever it is made of. A new store joins by a line in `STORES`."""

import asyncio
import random
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from runglass.errors import DuplicateIdempotencyKey, PermanentStoreError, StoreError, WrongExpectedVersion
from runglass.store.base import Store
from runglass.store.process_records import ProcessFacts
from runglass.store.records import (
    ApiKey,
    Append,
    AttemptKey,
    Checkpoint,
    IdempotencyKey,
    IdempotencyRecord,
    RunRecord,
    StepRow,
    ViewerSession,
)
from runglass.store.sqlite.store import SqliteStore
from tests.postgres_pooler import pgbouncer_path, pooler
from tests.postgres_server import FolderStore
from tests.records import new_run, open_trace

FILE_STORES: dict[str, Callable[..., Any]] = {
    "sqlite-full": lambda folder, **more: SqliteStore(folder / "runglass.db", synchronous="FULL", **more),
    "sqlite-normal": lambda folder, **more: SqliteStore(folder / "runglass.db", synchronous="NORMAL", **more),
}
"""The stores whose files are their own."""
STORES = {**FILE_STORES, "postgres": FolderStore}
POOLED: dict[str, Callable[..., Any]] = {
    "pooler": lambda folder, **more: FolderStore(
        folder, way=lambda address: pooler().address(address), **more
    )
}
"""PostgreSQL by way of a pooler, where there is one."""
ALL_STORES = STORES | (POOLED if pgbouncer_path() else {})


def store_kinds(*without: str) -> list[Any]:
    """The names of the stores as parameters of tests; those that need a server are slow."""
    return [
        kind if kind in FILE_STORES else pytest.param(kind, marks=pytest.mark.slow)
        for kind in ALL_STORES
        if kind not in without
    ]


@pytest.fixture(params=store_kinds())
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with ALL_STORES[request.param](tmp_path) as opened:
        yield opened


@pytest.fixture(params=FILE_STORES)
async def file_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with FILE_STORES[request.param](tmp_path) as opened:
        yield opened


async def whole_trace(store: Store, run_id: str) -> tuple[bytes, list[bytes]]:
    """The summary and the latest attempt of each step: events of these tests have no content to read."""
    found = await open_trace(store, run_id)
    return found.run.summary, [data for _, data in found.steps]


async def make_run(
    store: Store, run_id: str = "run-1", *, project: str = "demo", slug: str = "flow"
) -> RunRecord:
    owner = await store.ensure_project("acme", project)
    flow = await store.put_draft(owner.id, slug, name=None, capture=None, source=b"{}")
    return await store.create_run(
        new_run(owner.id, flow.id, id=run_id, request=b'{"inputs":{}}', summary=b'{"status":"pending"}')
    )


def batch(run: RunRecord, head: int, *events: bytes, status: str = "running", **more: Any) -> Append:
    return Append(
        run_no=run.no,
        head=head,
        fence=run.fence,
        events=events,
        status=status,
        summary=b'{"status":"%s"}' % status.encode(),
        **more,
    )


def row(position: int, *, attempt: int = 1, status: str = "running", step_id: str = "s") -> StepRow:
    return StepRow(position, step_id, "", attempt, status, b"%d.%d %s" % (position, attempt, status.encode()))


async def test_events_come_back_in_order_and_without_gaps(store: Store) -> None:
    run = await make_run(store)
    await store.append(batch(run, 0, b"one", b"two"))
    await store.append(batch(run, 2, b"three"))
    assert await store.events(run.no, after=0, limit_bytes=1000) == [(1, b"one"), (2, b"two"), (3, b"three")]
    assert await store.events(run.no, after=2, limit_bytes=1000) == [(3, b"three")]
    assert await store.events(run.no, after=3, limit_bytes=1000) == []


async def test_a_page_of_events_is_bounded_by_bytes_but_never_empty_while_there_are_more(
    store: Store,
) -> None:
    run = await make_run(store)
    await store.append(batch(run, 0, *[b"x" * 100] * 10))
    assert len(await store.events(run.no, after=0, limit_bytes=250)) == 3
    assert len(await store.events(run.no, after=0, limit_bytes=1)) == 1


async def test_an_append_moves_head_status_and_summary_together(store: Store) -> None:
    run = await make_run(store)
    assert (run.status, run.head) == ("pending", 0)
    await store.append(batch(run, 0, b"one", b"two"))
    current = await store.run("run-1")
    assert current is not None
    assert (current.status, current.head, current.summary) == ("running", 2, b'{"status":"running"}')


@pytest.mark.parametrize("head", [0, 1, 3])
async def test_an_append_on_another_head_is_refused_and_writes_nothing(store: Store, head: int) -> None:
    run = await make_run(store)
    await store.append(batch(run, 0, b"one", b"two"))
    with pytest.raises(WrongExpectedVersion):
        await store.append(
            batch(
                run, head, b"other", steps=[row(1)], checkpoints=[Checkpoint("s", "", b"{}")], status="failed"
            )
        )
    assert len(await store.events(run.no, after=0, limit_bytes=1000)) == 2
    assert await whole_trace(store, run.id) == (b'{"status":"running"}', [])
    assert await store.checkpoints(run.no) == []


async def test_a_writer_with_an_old_fencing_number_is_refused(store: Store) -> None:
    run = await make_run(store)
    stale = Append(run_no=run.no, head=0, fence=run.fence - 1, events=[b"x"], status="running", summary=b"{}")
    with pytest.raises(WrongExpectedVersion):
        await store.append(stale)
    assert await store.events(run.no, after=0, limit_bytes=1000) == []


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


async def test_the_trace_holds_the_latest_attempt_of_each_step_in_order_of_first_start(store: Store) -> None:
    run = await make_run(store)
    await store.append(batch(run, 0, b"1", steps=[row(1, status="failed"), row(2, step_id="t")]))
    await store.append(batch(run, 1, b"2", steps=[row(1, attempt=2)]))
    await store.append(batch(run, 2, b"3", steps=[row(1, attempt=2, status="completed")]))
    _, steps = await whole_trace(store, run.id)
    assert steps == [b"1.2 completed", b"2.1 running"]


async def test_no_attempt_is_ever_overwritten_by_the_next(store: Store) -> None:
    run = await make_run(store)
    # Both attempts in one append, and each in one of its own, must come to the same.
    await store.append(
        batch(
            run,
            0,
            b"1",
            steps=[row(1, status="failed"), row(1, attempt=2, status="failed"), row(1, attempt=3)],
        )
    )
    await store.append(batch(run, 1, b"2", steps=[row(1, attempt=3, status="completed")]))
    attempts = await store.attempts(run.no, "s")
    assert [(step.attempt, step.status) for step in attempts] == [
        (1, "failed"),
        (2, "failed"),
        (3, "completed"),
    ]
    assert [step.data for step in attempts] == [b"1.1 failed", b"1.2 failed", b"1.3 completed"]


async def test_attempts_are_ordered_by_iteration_then_number(store: Store) -> None:
    run = await make_run(store)
    await store.append(
        batch(run, 0, b"1", steps=[row(1, status="failed"), row(2, status="failed"), row(1, attempt=2)])
    )
    await store.append(batch(run, 1, b"2", steps=[row(2, attempt=2)]))
    found = [(step.position, step.attempt) for step in await store.attempts(run.no, "s")]
    assert found == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert await store.attempts(run.no, "other") == []


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


@pytest.mark.parametrize(
    ("loop_index", "places"),
    [
        (None, [(1, "1,2"), (2, "0,12"), (3, "1,0"), (4, "0,2")]),
        ("1,0", [(3, "1,0")]),
        ("2", [(1, "1,2"), (4, "0,2")]),
        ("12", [(2, "0,12")]),
        ("1", []),
        ("1,2", [(1, "1,2")]),
        ("5,0,2", []),
    ],
)
async def test_attempts_are_found_by_the_end_of_their_iterations_path(
    store: Store, loop_index: str | None, places: list[tuple[int, str]]
) -> None:
    """The last of them is the iteration that began last, whatever its number."""
    run = await make_run(store)
    paths = ("1,2", "0,12", "1,0", "0,2")
    steps = [row(place)._replace(loop_path=path) for place, path in enumerate(paths, 1)]
    steps.append(row(5, step_id="t"))
    await store.append(batch(run, 0, b"1", steps=steps))
    await store.append(
        batch(run, 1, b"2", steps=[row(3, attempt=2)._replace(loop_path="1,0"), row(6, step_id="t")])
    )
    keys = [
        AttemptKey(place, path, number) for place, path in places for number in range(1, 2 + (place == 3))
    ]
    assert await store.attempt_keys(run.no, "s", loop_index=loop_index) == keys
    newest = places[-1][0] if places else None
    assert await store.newest_position(run.no, "s", loop_index=loop_index) == newest
    assert await store.newest_position(run.no, "u", loop_index=loop_index) is None
    for place in range(1, 7):
        at = await store.attempt_keys(run.no, "s", position=place, loop_index=loop_index)
        assert at == [key for key in keys if key.position == place]


async def test_a_step_outside_of_loops_is_in_no_iteration(store: Store) -> None:
    run = await make_run(store)
    await store.append(batch(run, 0, b"1", steps=[row(1)]))
    assert await store.newest_position(run.no, "s") == 1
    assert await store.newest_position(run.no, "s", loop_index="0") is None
    assert await store.attempt_keys(run.no, "s", loop_index="0") == []


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


async def test_open_steps_are_those_whose_latest_attempt_did_not_end_well(store: Store) -> None:
    run = await make_run(store)
    await store.append(
        batch(
            run,
            0,
            b"1",
            steps=[
                row(1, status="completed"),
                row(2),
                row(3, status="skipped"),
                row(4, status="failed"),
            ],
        )
    )
    steps, last = await store.open_steps(run.no)
    assert [step.position for step in steps] == [2, 4]
    assert last == 4


async def test_checkpoints_live_as_long_as_the_run(store: Store) -> None:
    run = await make_run(store)
    await store.append(batch(run, 0, b"1", checkpoints=[Checkpoint("s", "0,3", b'{"a":1}')]))
    assert await store.checkpoints(run.no) == [Checkpoint("s", "0,3", b'{"a":1}')]
    await store.append(batch(run, 1, b"2", status="paused"))
    assert len(await store.checkpoints(run.no)) == 1
    await store.append(batch(run, 2, b"3", status="completed", checkpoints=[Checkpoint("t", "", b"{}")]))
    assert await store.checkpoints(run.no) == []


async def test_a_request_is_kept_while_the_run_lives(store: Store) -> None:
    run = await make_run(store)
    assert await store.request(run.no) == b'{"inputs":{}}'
    await store.append(batch(run, 0, b"1"))
    assert await store.request(run.no) == b'{"inputs":{}}'
    await store.append(batch(run, 1, b"2", status="failed"))
    assert await store.request(run.no) is None


async def test_runs_without_a_lease_are_claimed_oldest_first(store: Store) -> None:
    statuses = ["pending", "running", "paused", "completed", "failed", "cancelled"]
    for number, status in enumerate(statuses):
        run = await make_run(store, f"run-{number}")
        if status != "pending":
            await store.append(batch(run, 0, b"1", status=status))
    claimed = await store.claim_runs("me", now="2026-01-01", limit=10)
    assert [(run.id, run.claims) for run in claimed] == [("run-0", 0), ("run-1", 1)], (
        "who waited for its turn has not been lost by anybody"
    )
    assert all(run.fence > 1 for run in claimed)
    assert [run.id for run in await store.paused_runs()] == ["run-2"]


async def test_an_owner_is_told_its_runs_with_the_head_of_each(store: Store) -> None:
    going, ended, _ = [await make_run(store, f"run-{number}") for number in range(3)]
    await store.hold_lease("me", until="2027-01-01", renew=False)
    await store.append(msgspec.structs.replace(batch(going, 0, b"1", b"2"), owner="me"))
    await store.append(msgspec.structs.replace(batch(ended, 0, b"1"), owner="me"))
    assert await store.owned_runs("me") == {"run-0": 2, "run-1": 1}
    await store.append(batch(ended, 1, b"2", status="completed"))
    assert await store.owned_runs("me") == {"run-0": 2}
    assert await store.owned_runs("you") == {}


async def test_a_lease_keeps_runs_from_others_until_it_runs_out(store: Store) -> None:
    run = await make_run(store)
    assert await store.hold_lease("one", until="2026-01-01T00:00:10Z", renew=False)
    (mine,) = await store.claim_runs("one", now="2026-01-01T00:00:00Z", limit=10)
    await store.append(msgspec.structs.replace(batch(mine, 0, b"1"), owner="one"))
    assert await store.claim_runs("two", now="2026-01-01T00:00:09Z", limit=10) == []
    assert await store.hold_lease("one", until="2026-01-01T00:00:20Z", renew=True)
    assert await store.claim_runs("two", now="2026-01-01T00:00:19Z", limit=10) == []
    (taken,) = await store.claim_runs("two", now="2026-01-01T00:00:21Z", limit=10)
    assert (taken.id, taken.head) == (run.id, 1)
    assert taken.fence > mine.fence > run.fence
    assert not await store.hold_lease("one", until="2026-01-01T00:00:30Z", renew=True), (
        "it knows that it lost"
    )
    with pytest.raises(WrongExpectedVersion):
        await store.append(batch(mine, 1, b"2"))
    await store.append(batch(taken, 1, b"2"))


async def test_a_run_is_free_at_once_when_its_lease_ends_or_is_released(store: Store) -> None:
    await make_run(store, "run-1")
    await make_run(store, "run-2")
    for owner in ("one", "two"):
        assert await store.hold_lease(owner, until="2027-01-01", renew=False)
    assert len(await store.claim_runs("one", now="2026-01-01", limit=10)) == 2
    await store.release_run("run-1", "two")
    assert await store.claim_runs("two", now="2026-01-01", limit=10) == [], "only its owner lets a run go"
    await store.release_run("run-1", "one")
    assert [run.id for run in await store.claim_runs("two", now="2026-01-01", limit=10)] == ["run-1"]
    await store.end_lease("one")
    assert [run.id for run in await store.claim_runs("two", now="2026-01-01", limit=10)] == ["run-2"]
    await store.end_lease(None)
    assert len(await store.claim_runs("three", now="2026-01-01", limit=1)) == 1, "not more than asked for"


async def test_a_lease_says_whose_it_is_and_how_many_runs_that_has(store: Store) -> None:
    await make_run(store, "run-1")
    worker = ProcessFacts("there", 7, "1.0", executes_runs=True)
    server = ProcessFacts("here", 8, "1.1", executes_runs=False)
    assert await store.hold_lease("one", until="2999-01-01T00:00:00Z", renew=False, process=worker)
    assert await store.hold_lease("two", until="2999-01-01T00:00:00Z", renew=False, process=server)
    await store.claim_runs("one", now="2026-01-01", limit=9)
    assert await store.hold_lease("one", until="2999-01-02T00:00:00Z", renew=True)
    held = {each.owner: each for each in await store.leases()}
    assert [(each.process, each.runs) for each in held.values()] == [(worker, 1), (server, 0)]
    assert held["one"].expires_at > held["two"].expires_at > held["two"].since
    await store.end_lease("one")
    assert [each.owner for each in await store.leases()] == ["two"]


async def test_a_task_of_maintenance_is_kept_by_whoever_claims_it_again(store: Store) -> None:
    for _ in range(2):
        assert await store.claim_maintenance("removal", for_s=60)
        assert await store.claim_maintenance("another", for_s=60)


async def test_claims_are_counted_until_the_log_grows(store: Store) -> None:
    run = claimed = await make_run(store)
    for count in (0, 1, 2):
        (claimed,) = await store.claim_runs(f"owner-{count}", now="2026-01-01", limit=1)
        assert claimed.claims == count
    await store.append(batch(claimed, 0, b"1"))
    (claimed,) = await store.claim_runs("owner", now="2026-01-01", limit=1)
    assert (claimed.id, claimed.claims) == (run.id, 1)


async def test_only_one_process_resumes_a_paused_run(store: Store) -> None:
    run = await make_run(store)
    await store.append(batch(run, 0, b"1", status="paused"))
    paused = await store.run(run.id)
    assert paused is not None
    taken = await store.claim_waiting(paused)
    assert taken is not None
    assert await store.claim_waiting(paused) is None
    assert await store.claim_waiting(run) is None
    await store.append(batch(taken, 1, b"2"))


async def paused_run(store: Store, run_id: str = "run") -> RunRecord:
    run = await make_run(store, run_id)
    await store.append(batch(run, 0, b"1", status="paused"))
    paused = await store.run(run_id)
    assert paused is not None
    return paused


NEXT_SEGMENT = Checkpoint("", "stretch", b"next")


async def test_a_stored_segment_makes_a_paused_run_one_that_can_be_claimed(store: Store) -> None:
    assert await store.hold_lease("me", until="2030-01-01", renew=False)
    paused, other = await paused_run(store), await paused_run(store, "other")
    resumed = await store.resume_run(paused, NEXT_SEGMENT, owner=None)
    assert resumed is not None
    assert (resumed.status, resumed.is_resuming, paused.is_resuming) == ("paused", True, False)
    assert await store.checkpoints(paused.no) == [NEXT_SEGMENT]
    assert (await store.queued_runs(paused.project_id, most=9)).waiting == 1
    (claimed,) = await store.claim_runs("me", now="2026-01-01", limit=10, project_id=paused.project_id)
    assert (claimed.id, claimed.is_resuming, claimed.claims) == (paused.id, True, 0)
    assert (await store.queued_runs(paused.project_id, most=9)).waiting == 0
    with pytest.raises(WrongExpectedVersion):
        await store.append(batch(resumed, 1, b"2"))
    await store.append(batch(claimed, 1, b"2", status="paused"))
    again = await store.run(paused.id)
    assert again is not None
    assert not again.is_resuming, "it waits for another call now"
    assert await store.claim_runs("you", now="2026-01-01", limit=10) == []
    assert await store.resume_run(again, NEXT_SEGMENT, owner=None) is not None
    assert [run.id for run in await store.claim_runs("me", now="2026-01-01", limit=10)] == [again.id]
    assert [run.id for run in await store.paused_runs()] == [paused.id, other.id]


async def test_of_two_that_resume_a_paused_run_one_does(store: Store) -> None:
    paused = await paused_run(store)
    assert await store.resume_run(paused, NEXT_SEGMENT, owner="one") is not None
    assert await store.resume_run(paused, NEXT_SEGMENT, owner="two") is None
    seen_later = await store.run(paused.id)
    assert seen_later is not None
    assert await store.resume_run(seen_later, NEXT_SEGMENT, owner="two") is None


async def test_a_run_that_is_resumed_by_a_process_that_dies_is_claimed_by_another(store: Store) -> None:
    assert await store.hold_lease("one", until="2027-01-01", renew=False)
    assert await store.resume_run(await paused_run(store), NEXT_SEGMENT, owner="one") is not None
    assert await store.claim_runs("two", now="2026-01-01", limit=10) == []
    (claimed,) = await store.claim_runs("two", now="2028-01-01", limit=10)
    assert (claimed.is_resuming, claimed.claims) == (True, 1)


async def test_a_run_that_ends_before_its_next_segment_is_not_claimed(store: Store) -> None:
    resumed = await store.resume_run(await paused_run(store), NEXT_SEGMENT, owner=None)
    assert resumed is not None
    taken = await store.claim_waiting(resumed)
    assert taken is not None
    await store.append(batch(taken, 1, b"2", status="cancelled"))
    assert (await store.queued_runs(resumed.project_id, most=9)).waiting == 0
    assert await store.claim_runs("me", now="2026-01-01", limit=10) == []


async def test_a_request_to_cancel_is_told_to_who_has_the_run(store: Store) -> None:
    assert await store.hold_lease("me", until="2030-01-01", renew=False)
    run, other = await make_run(store, "run-1"), await make_run(store, "run-2")
    assert await store.request_cancel(other.id, reason="why") == "", "nobody has it"
    claimed, waited = await store.claim_runs("me", now="2026-01-01", limit=10)
    assert (claimed.cancel_reason, waited.cancel_reason) == (None, "why"), "whoever claims it is told"
    assert await store.cancel_requests("me") == {other.id: "why"}
    assert await store.request_cancel(run.id, reason="because") == "me"
    assert await store.request_cancel(run.id, reason="again") == "me"
    assert await store.cancel_requests("me") == {run.id: "because", other.id: "why"}
    assert await store.cancel_requests("you") == {}
    await store.append(batch(claimed, 0, b"1", status="cancelled"))
    assert await store.cancel_requests("me") == {other.id: "why"}
    assert await store.request_cancel(run.id, reason="too late") is None
    assert await store.request_cancel("nothing", reason="why") is None


async def test_only_one_process_takes_a_waiting_run(store: Store) -> None:
    run, other = await make_run(store, "run-1"), await make_run(store, "run-2")
    taken = await store.claim_waiting(run)
    assert taken is not None
    assert await store.claim_waiting(run) is None
    with pytest.raises(WrongExpectedVersion):
        await store.append(batch(run, 0, b"1"))
    await store.append(batch(taken, 0, b"1", status="cancelled"))
    (claimed,) = await store.claim_runs("me", now="2026-01-01", limit=10)
    assert claimed.id == other.id
    assert await store.claim_waiting(claimed) is None, "somebody goes on with it"


async def test_the_runs_of_one_project_are_claimed_past_those_of_another(store: Store) -> None:
    assert await store.hold_lease("me", until="2030-01-01", renew=False)
    runs = [await make_run(store, f"run-{number}") for number in range(3)]
    other = await make_run(store, "run-other", project="other")
    assert await store.queued_runs(other.project_id, most=9) == (4, 1, 2)
    (claimed,) = await store.claim_runs("me", now="2026-01-01", limit=10, project_id=other.project_id)
    assert claimed.id == "run-other"
    await store.append(batch(runs[1], 0, b"1"))
    two = await store.claim_runs("me", now="2026-01-01", limit=2, project_id=runs[0].project_id)
    assert [run.id for run in two] == ["run-0", "run-1"], "oldest first, begun or not"
    assert await store.claim_runs("me", now="2026-01-01", limit=10, project_id=other.project_id) == []


async def test_no_project_gets_more_runs_than_it_may_have_in_all_processes(store: Store) -> None:
    for owner in ("one", "two"):
        assert await store.hold_lease(owner, until="2030-01-01", renew=False)
    for number in range(4):
        await make_run(store, f"many-{number}")
        await make_run(store, f"few-{number}", project="few")

    async def claim(owner: str, *, limit: int = 10, at: str = "2026-01-01") -> list[str]:
        return sorted(run.id for run in await store.claim_runs(owner, now=at, limit=limit, most_each=2))

    assert await claim("one", limit=3) in (
        ["few-0", "many-0", "many-1"],
        ["few-0", "few-1", "many-0"],
    )
    assert len(await claim("two")) == 1
    assert await claim("one") == await claim("two") == []
    ended = await store.run("few-0")
    assert ended is not None
    await store.append(batch(ended, 0, b"1", status="completed", ended_at="2026"))
    assert await claim("one") == ["few-2"]
    assert len(await claim("later", at="2031-01-01")) == 4, "what others have left off has its place already"


async def test_no_flow_gets_more_runs_than_it_may_have_in_all_processes(store: Store) -> None:
    for owner in ("one", "two"):
        assert await store.hold_lease(owner, until="2030-01-01", renew=False)
    for number in range(4):
        await make_run(store, f"slow-{number}", slug="slow")
        await make_run(store, f"free-{number}", slug="free")

    async def claim(owner: str, *, limit: int, most_each: int | None = None) -> list[str]:
        limits = {"acme/demo/slow": 2, "acme/demo/none": 1}
        claimed = await store.claim_runs(
            owner, now="2026-01-01", limit=limit, most_of_flows=limits, most_each=most_each
        )
        return sorted(run.id for run in claimed)

    assert await claim("one", limit=2) == ["free-0", "slow-0"]
    assert await claim("two", limit=10) == ["free-1", "free-2", "free-3", "slow-1"]
    assert await claim("one", limit=10) == []
    ended = await store.run("slow-0")
    assert ended is not None
    await store.append(batch(ended, 0, b"1", status="completed", ended_at="2026"))
    assert await claim("one", limit=10, most_each=5) == []
    assert await claim("one", limit=10, most_each=6) == ["slow-2"]


async def test_the_runs_that_wait_are_counted_up_to_a_number(store: Store) -> None:
    assert await store.hold_lease("one", until="2030-01-01", renew=False)
    first = await make_run(store)
    assert await store.queued_runs(first.project_id, most=10) == (1, 1, 1)
    [other, *_] = [await make_run(store, f"other-{number}", project="other") for number in range(3)]
    assert await store.queued_runs(first.project_id, most=10) == (4, 1, 2)
    assert (await store.queued_runs(other.project_id, most=2)).waiting == 2
    await store.set_weights({first.project_id: 2.0})
    await store.claim_runs("one", now="2026-01-01", limit=9)
    assert await store.queued_runs(first.project_id, most=10) == (0, 0, 0)


async def test_a_budget_is_held_once_until_it_is_given_back_or_its_run_is_taken_over(store: Store) -> None:
    assert await store.hold_lease("one", until="2027-01-01", renew=False)
    made = await make_run(store)
    (run,) = await store.claim_runs("one", now="2026-01-01", limit=1)
    assert (await store.hold_budget(uuid4(), run, Decimal(99))).has_room_for(Decimal(99)), (
        "there is no budget"
    )
    first, second = uuid4(), uuid4()
    await store.append(batch(run, 0, b"1", owner="one"))
    (run,) = await store.claim_runs("other", now="2028-01-01", limit=1)
    await store.set_budget(made.project_id, Decimal(10))

    async def is_held(hold: UUID, usd: int) -> bool:
        return (await store.hold_budget(hold, run, Decimal(usd))).has_room_for(Decimal(usd))

    assert await is_held(first, 6), "who held something before has lost the run"
    assert not await is_held(second, 5)
    assert await is_held(second, 4)
    await store.release_budget(first)
    await store.append(batch(run, 1, b"2", owner="other", spent_usd=Decimal(2), reserved_usd=Decimal(3)))
    assert not await is_held(first, 2)
    assert await is_held(first, 1)
    await store.append(batch(run, 2, b"3", status="completed", ended_at="2026", reserved_usd=Decimal(-3)))
    decision = await store.hold_budget(uuid4(), run, Decimal(8))
    assert decision.held_usd == 0, "a run that has ended holds nothing"
    assert decision.has_room_for(Decimal(8))


async def test_a_write_that_is_tried_leaves_nothing_behind(store: Store) -> None:
    run = await make_run(store)
    for _ in range(3):
        await store.check_write()
    assert (await store.queued_runs(run.project_id, most=9)).waiting == 1


async def test_owed_content_is_kept_as_long_as_its_call(store: Store) -> None:
    run = await make_run(store)
    await store.append(msgspec.structs.replace(batch(run, 0, b"1", b"2"), owed=[(2, b"{}")]))
    assert (await store.owed(run.no, 1), await store.owed(run.no, 2)) == (None, b"{}")
    paused = await store.run(run.id)
    assert paused is not None
    await store.begin_call(run.project_id, IdempotencyKey("key", b"digest"), paused)
    begun = await store.call(run.project_id, "key")
    assert begun is not None
    assert begun.head == 2
    await store.forget_calls(before="2000")
    assert await store.owed(run.no, 2) == b"{}"
    await store.forget_calls(before="9999")
    assert await store.owed(run.no, 2) is None


async def test_checkpoints_of_steps_that_run_again_are_dropped(store: Store) -> None:
    run = await make_run(store)
    kept = [Checkpoint("s", "", b"1"), Checkpoint("s", "0", b"2"), Checkpoint("t", "", b"3")]
    await store.append(batch(run, 0, b"1", checkpoints=kept))
    again = batch(run, 1, b"2", checkpoints=[Checkpoint("s", "1", b"4")])
    await store.append(msgspec.structs.replace(again, dropped=["s"]))
    assert await store.checkpoints(run.no) == [Checkpoint("s", "1", b"4"), Checkpoint("t", "", b"3")]


async def test_large_checkpoints_of_steps_that_run_again_go_bit_by_bit(store: Store) -> None:
    run = await make_run(store)
    large = b"0" * 700_000
    old = [Checkpoint("s", str(number), large) for number in range(3)]
    size = 3 * len(large)
    first = batch(run, 0, b"1", checkpoints=[*old, Checkpoint("t", "", b"1")])
    await store.append(msgspec.structs.replace(first, open_bytes=size))
    before = await open_bytes_of(store, run.id)
    again = [Checkpoint("s", "1", b"2"), Checkpoint("s", "3", b"3")]
    await store.append(msgspec.structs.replace(batch(run, 1, b"2", checkpoints=again), dropped=["s", "u"]))
    left = [*again, Checkpoint("t", "", b"1")]
    assert sorted(await store.checkpoints(run.no)) == left
    assert await store.checkpoint(run.no, "s", "0") is None
    assert await store.checkpoint(run.no, "s", "1") == b"2"
    assert await open_bytes_of(store, run.id) == before, "each counts until it is gone"
    # A checkpoint that took the place of a void one leaves two of them to delete.
    for rest in (len(large), 0):
        assert await store.drop_checkpoints(limit_rows=100, limit_bytes=1000)
        assert await open_bytes_of(store, run.id) == before - 2 * len(large) + rest
    await store.append(msgspec.structs.replace(batch(run, 2, b"3"), dropped=["s"]))
    assert await store.checkpoints(run.no) == [Checkpoint("t", "", b"1")]
    while await store.drop_checkpoints(limit_rows=1, limit_bytes=1):
        pass
    assert await store.checkpoints(run.no) == [Checkpoint("t", "", b"1")]
    await store.append(batch(run, 3, b"4", status="completed"))
    while await store.drop_checkpoints(limit_rows=1, limit_bytes=1):
        pass
    assert await store.checkpoints(run.no) == []


async def open_bytes_of(store: Store, run_id: str) -> int:
    run = await store.run(run_id)
    assert run is not None
    return run.open_bytes


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


async def test_the_last_position_is_that_of_the_step_that_began_last(store: Store) -> None:
    run, other = await make_run(store), await make_run(store, "run-2")
    assert await store.last_position(run.no) == 0
    await store.append(batch(run, 0, b"1", steps=[row(1, status="failed"), row(2), row(1, attempt=2)]))
    await store.append(batch(other, 0, b"1", steps=[row(1), row(2), row(3)]))
    assert await store.last_position(run.no) == 2
    assert await store.last_position(other.no + 1) == 0


async def test_attempts_of_one_iteration_come_in_order(store: Store) -> None:
    run = await make_run(store)
    await store.append(batch(run, 0, b"1", steps=[row(1, status="failed"), row(2)]))
    await store.append(batch(run, 1, b"2", steps=[row(1)._replace(attempt=2)]))
    assert [(found.attempt, found.status) for found in await store.attempts_at(run.no, 1)] == [
        (1, "failed"),
        (2, "running"),
    ]


async def test_every_row_of_a_run_is_handed_out_as_it_is(store: Store) -> None:
    run, other = await make_run(store), await make_run(store, "run-2")
    await store.begin_call(run.project_id, IdempotencyKey("key", b"digest"), run)
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


async def test_publishing_freezes_the_draft_as_the_next_version(store: Store) -> None:
    project = await store.ensure_project("acme", "demo")
    flow = await store.put_draft(project.id, "f", name="One", capture=None, source=b"first")
    assert flow.production_version is None
    assert await store.publish(flow.id) == 1
    assert await store.publish(flow.id) == 1, "an unchanged draft makes no new version"
    changed = await store.put_draft(project.id, "f", name="Two", capture="full", source=b"second")
    assert (changed.id, changed.name, changed.capture, changed.production_version) == (
        flow.id,
        "Two",
        "full",
        1,
    )
    assert await store.publish(flow.id) == 2
    assert [await store.flow_source(flow.id, version) for version in (0, 1, 2, 3)] == [
        b"second",
        b"first",
        b"second",
        None,
    ]


async def test_publishing_a_flow_without_a_draft_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="no draft"):
        await store.publish("nowhere")


async def test_flows_of_one_slug_in_two_projects_are_two_flows(store: Store) -> None:
    here, there = await store.ensure_project("acme", "here"), await store.ensure_project("acme", "there")
    mine = await store.put_draft(here.id, "f", name=None, capture=None, source=b"mine")
    assert await store.find_flow(there.id, "f") is None
    theirs = await store.put_draft(there.id, "f", name=None, capture=None, source=b"theirs")
    assert mine.id != theirs.id
    assert [flow.id for flow in await store.flows(here.id)] == [mine.id]
    assert await store.flow(mine.id) == mine


async def test_keys_flows_and_versions_are_read_in_pieces(store: Store) -> None:
    here, there = await store.ensure_project("acme", "here"), await store.ensure_project("acme", "there")
    for project in (here, there):
        for slug in ("c", "a", "b"):
            await store.put_draft(project.id, slug, name=None, capture=None, source=b"1")
            await store.add_key(project.id, "read", f"{project.id}{slug}".encode(), "nk_")
    assert [flow.slug for flow in await store.flows(here.id, limit=2)] == ["a", "b"]
    assert [flow.slug for flow in await store.flows(here.id, after="b", limit=2)] == ["c"]
    first, second, third = await store.keys(here.id)
    assert await store.keys(here.id, limit=2) == [first, second]
    assert await store.keys(here.id, after=second.id, limit=2) == [third]
    flow = (await store.flows(here.id))[0]
    await store.publish(flow.id)
    assert [each.version for each in await store.versions(flow.id, limit=1)] == [0]
    assert [each.version for each in await store.versions(flow.id, after=0, limit=2)] == [1]


async def test_production_moves_to_published_versions_only(store: Store) -> None:
    project = await store.ensure_project("acme", "demo")
    flow = await store.put_draft(project.id, "f", name=None, capture=None, source=b"first")
    await store.publish(flow.id)
    await store.put_draft(project.id, "f", name=None, capture=None, source=b"second")
    await store.publish(flow.id)
    assert [version.version for version in await store.versions(flow.id)] == [0, 1, 2]
    assert [await store.set_production(flow.id, version) for version in (1, 0, 3)] == [True, False, False]
    rolled_back = await store.flow(flow.id)
    assert rolled_back is not None
    assert rolled_back.production_version == 1


async def test_reservations_of_a_budget_change_with_appends(store: Store) -> None:
    run = await make_run(store)
    tiny = Decimal("0.0000000000000000000000000000000001")
    await store.append(batch(run, 0, b"1", reserved_usd=Decimal(1) + tiny))
    with pytest.raises(WrongExpectedVersion):
        await store.append(batch(run, 0, b"1", reserved_usd=Decimal(1)))
    project = await store.project(run.project_id)
    assert project is not None
    assert (project.spent_usd, project.reserved_usd) == (Decimal(0), Decimal(1) + tiny)
    await store.append(batch(run, 1, b"2", spent_usd=tiny, reserved_usd=-(Decimal(1) + tiny)))
    project = await store.project(run.project_id)
    assert project is not None
    assert (project.spent_usd, project.reserved_usd) == (tiny, Decimal(0))


@pytest.mark.parametrize("patterns", [["openai:*", "local:é"], []])
async def test_a_projects_list_of_models_is_kept_and_lifted(store: Store, patterns: list[str]) -> None:
    project = await store.ensure_project("acme", "demo")
    assert project.allowed_models is None
    await store.set_allowed_models(project.id, patterns)
    found = await store.project(project.id)
    assert found is not None
    assert found.allowed_models == tuple(patterns)
    await store.set_allowed_models(project.id, None)
    assert await store.project(project.id) == project


async def test_what_a_run_spends_is_added_to_its_project_once(store: Store) -> None:
    run = await make_run(store)
    tiny = Decimal("0.0000000000000000000000000000000001")
    budget = Decimal("1.0000000000000000000000000000000001")
    await store.set_budget(run.project_id, budget)
    await store.append(batch(run, 0, b"1", spent_usd=Decimal(1)))
    with pytest.raises(WrongExpectedVersion):
        await store.append(batch(run, 0, b"1", spent_usd=Decimal(1)))
    project = await store.project(run.project_id)
    assert project is not None
    assert (project.budget_usd, project.spent_usd, project.is_spent) == (budget, Decimal(1), False)
    await store.append(batch(run, 1, b"2", spent_usd=tiny))
    project = await store.project(run.project_id)
    assert project is not None
    assert project.is_spent
    await store.set_budget(run.project_id, None)
    project = await store.project(run.project_id)
    assert project is not None
    assert not project.is_spent


async def test_the_outcome_of_a_run_is_kept_for_its_caller(store: Store) -> None:
    run = await make_run(store)
    await store.append(batch(run, 0, b"1"))
    assert await store.outcome(run.no) == (None, None)
    await store.append(batch(run, 1, b"2", status="completed", result=b'{"a":1}'))
    assert await store.outcome(run.no) == (b'{"a":1}', None)
    failed = await make_run(store, "run-2")
    await store.append(batch(failed, 0, b"1", status="failed", error=b'{"code":"X"}'))
    assert await store.outcome(failed.no) == (None, b'{"code":"X"}')


async def test_a_call_under_one_key_makes_one_run(store: Store) -> None:
    run = await make_run(store)
    new = new_run(run.project_id, run.flow_id, id="run-2", call=IdempotencyKey("key", b"digest"))
    await store.create_run(new)
    with pytest.raises(DuplicateIdempotencyKey):
        await store.create_run(msgspec.structs.replace(new, id="run-3"))
    assert await store.run("run-3") is None
    assert await store.call(run.project_id, "key") == IdempotencyRecord(
        key="key", digest=b"digest", run_id="run-2"
    )
    with pytest.raises(DuplicateIdempotencyKey):
        await store.begin_call(run.project_id, IdempotencyKey("key", b"other"), run)
    await store.answer_call(run.project_id, "key", status=200, answer=b"{}")
    answered = await store.call(run.project_id, "key")
    assert answered is not None
    assert (answered.status, answered.answer) == (200, b"{}")
    assert await store.call(run.project_id + 1, "key") is None, "a key of another project"
    assert await store.forget_calls(before="2000-01-01") == 0
    assert await store.forget_calls(before="9999-01-01") == 1
    assert await store.call(run.project_id, "key") is None


async def test_what_a_caller_is_owed_expires_with_the_runs_end_and_the_call_stays_known(store: Store) -> None:
    run = await make_run(store)
    await store.begin_call(run.project_id, IdempotencyKey("key", b"digest"), run)
    await store.answer_call(run.project_id, "key", status=202, answer=b"{}")
    await store.append(msgspec.structs.replace(batch(run, 0, b"1"), owed=[(1, b"{}")]))
    assert await store.expire_answers(before="9999", limit=10) == 0, "the run goes on"
    await store.append(batch(run, 1, b"2", status="completed", result=b'{"a":1}'))
    assert await store.expire_answers(before="2000", limit=10) == 0, "nothing is as old as that"
    assert await store.outcome(run.no) == (b'{"a":1}', None)
    assert await store.expire_answers(before="9999", limit=10) == 2
    assert await store.expire_answers(before="9999", limit=10) == 0
    assert await store.outcome(run.no) == (None, None)
    assert await store.owed(run.no, 1) is None
    call = await store.call(run.project_id, "key")
    assert call == IdempotencyRecord(key="key", digest=b"digest", run_id=run.id, status=202)


async def test_answers_of_calls_count_as_data_of_the_project(store: Store) -> None:
    async def taken() -> int:
        project = await store.project(run.project_id)
        assert project is not None
        found = await store.run(run.id)
        assert found is not None
        assert project.data_bytes - others == found.log_bytes + found.open_bytes
        return project.data_bytes - others

    others = 0
    await make_run(store, "run-0")
    run = await make_run(store)
    others = len(b'{"inputs":{}}')
    request = await taken()
    await store.begin_call(run.project_id, IdempotencyKey("key", b"digest"), run)
    await store.answer_call(run.project_id, "key", status=202, answer=b"a" * 500)
    assert await taken() == request + 500
    content = b"c" * 3000
    # As the engine counts: what is owed is part of what it says is open.
    await store.append(batch(run, 0, b"1", owed=[(1, content)], open_bytes=3000))
    assert await taken() == request + 3500
    await store.append(batch(run, 1, b"2", status="completed", result=b"r" * 70))
    assert await taken() == 3570, "the request is gone, the rest is still owed"
    await store.expire_answers(before="9999", limit=1)
    assert await taken() == 0


async def test_calls_that_are_forgotten_are_not_counted_any_more(store: Store) -> None:
    run = await make_run(store)
    await store.begin_call(run.project_id, IdempotencyKey("key", b"digest"), run)
    await store.append(batch(run, 0, b"1", owed=[(1, b"c" * 3000)], open_bytes=3000))
    await store.append(batch(run, 1, b"2", status="completed", result=b"r" * 70))
    await store.answer_call(run.project_id, "key", status=200, answer=b"a" * 500)
    before = await store.project(run.project_id)
    await store.forget_calls(before="9999")
    after = await store.project(run.project_id)
    assert before is not None
    assert after is not None
    assert (before.data_bytes, after.data_bytes) == (3570, 70)


async def test_the_answer_to_a_call_expires_though_its_run_waits(store: Store) -> None:
    run = await make_run(store)
    paused = msgspec.structs.replace(batch(run, 0, b"1", status="paused"), owed=[(1, b"{}")])
    await store.append(paused)
    await store.begin_call(run.project_id, IdempotencyKey("key", b"digest"), run)
    await store.answer_call(run.project_id, "key", status=200, answer=b"{}")
    assert await store.expire_answers(before="9999", limit=10) == 1
    call = await store.call(run.project_id, "key")
    assert call is not None
    assert (call.status, call.answer) == (200, None)
    assert await store.owed(run.no, 1) == b"{}", "a run that waits keeps what it needs"


async def test_answers_expire_a_few_at_a_time_and_the_oldest_first(store: Store) -> None:
    runs = [await make_run(store, f"run-{number}") for number in range(3)]
    for run in runs:
        await store.append(batch(run, 0, b"1", status="completed", result=b"{}"))
    assert await store.expire_answers(before="9999", limit=2) == 2
    assert [await store.outcome(run.no) for run in runs] == [(None, None), (None, None), (b"{}", None)]
    assert await store.expire_answers(before="9999", limit=2) == 1


async def test_large_answers_expire_one_after_the_other(store: Store) -> None:
    for number in range(3):
        run = await make_run(store, f"run-{number}")
        await store.append(batch(run, 0, b"1", status="completed", result=b'"%s"' % (b"x" * 700_000)))
    assert await store.expire_answers(before="9999", limit=10) == 2
    assert await store.expire_answers(before="9999", limit=10) == 1
    assert await store.expire_answers(before="9999", limit=10) == 0


async def test_owed_content_of_one_run_expires_bit_by_bit(store: Store) -> None:
    run = await make_run(store)
    owed = [(seq, b"x" * 700_000) for seq in range(1, 6)]
    await store.append(msgspec.structs.replace(batch(run, 0, *[b"1"] * 5), owed=owed))
    await store.append(batch(run, 5, b"2", status="completed", result=b"{}"))
    bites = 0
    while await store.expire_answers(before="9999", limit=10):
        bites += 1
        assert [seq for seq in range(1, 6) if await store.owed(run.no, seq)] == list(range(1 + 2 * bites, 6))
    assert bites == 3
    assert await store.outcome(run.no) == (None, None)


CANARY = b"canary-of-the-store"


def files_with(canary: bytes, folder: Path) -> list[str]:
    return [path.name for path in sorted(folder.iterdir()) if canary in path.read_bytes()]


async def test_what_was_deleted_is_in_no_file_after_a_scrub(file_store: Store, tmp_path: Path) -> None:
    run = await make_run(file_store)
    kept = [Checkpoint("s", "", b'"%s"' % CANARY)]
    await file_store.append(batch(run, 0, b"1", checkpoints=kept))
    await file_store.begin_call(run.project_id, IdempotencyKey("key", b"digest"), run)
    await file_store.answer_call(run.project_id, "key", status=200, answer=CANARY)
    ended = batch(run, 1, b"2", status="completed", result=b'"%s"' % CANARY)
    await file_store.append(msgspec.structs.replace(ended, owed=[(2, b'"%s"' % CANARY)]))
    await file_store.expire_answers(before="9999", limit=10)
    assert files_with(CANARY, tmp_path) == ["runglass.db-wal"], "the log has pages as they were"
    assert await file_store.scrub()
    assert files_with(CANARY, tmp_path) == []
    assert await file_store.scrub(), "nothing to do"


async def test_a_reader_in_the_way_of_a_scrub_only_puts_it_off(file_store: Store, tmp_path: Path) -> None:
    run = await make_run(file_store)
    await file_store.append(batch(run, 0, b"1", status="completed", result=b'"%s"' % CANARY))
    with closing(sqlite3.connect(tmp_path / "runglass.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM run").fetchone()
        await file_store.expire_answers(before="9999", limit=10)
        assert not await file_store.scrub()
        await file_store.append(batch(await make_run(file_store, "run-2"), 0, b"1"))
    assert await file_store.scrub()
    assert files_with(CANARY, tmp_path) == []


async def test_copies_that_moving_rows_left_are_scrubbed_too(file_store: Store, tmp_path: Path) -> None:
    """Many runs at a time, with checkpoints of all sizes; one in ten runs stays, and its pages with it."""
    chance = random.Random(4)
    alive: list[RunRecord] = []
    for number in range(300):
        run = await make_run(file_store, f"run-{number}")
        text = b"plain" if number % 10 == 0 else CANARY
        if number % 10:
            alive.append(run)
        kept = [Checkpoint(f"s{s}", "", text * chance.choice([3, 10, 20, 45, 150])) for s in range(4)]
        await file_store.append(batch(run, 0, b"1", checkpoints=kept))
        if len(alive) > 30:
            over = alive.pop(chance.randrange(len(alive)))
            await file_store.append(batch(over, 1, b"2", status="completed", result=b"{}"))
    for run in alive:
        await file_store.append(batch(run, 1, b"2", status="completed", result=b"{}"))
    assert await file_store.scrub()
    assert files_with(CANARY, tmp_path) == []


async def test_runs_of_a_session_are_found_oldest_first_in_their_project_only(store: Store) -> None:
    first = await make_run(store, "run-1")
    for number in (3, 2):
        await store.create_run(new_run(first.project_id, first.flow_id, id=f"run-{number}", session_id="s"))

    async def found(after: str = "", limit: int = 10) -> list[str]:
        runs = await store.session_runs(first.project_id, "s", after=after, limit=limit)
        return [run.id for run in runs]

    assert await found() == ["run-2", "run-3"]
    assert await found(limit=1) == ["run-2"]
    assert await found(after="run-2") == ["run-3"]
    assert await found(after="run-3") == []
    assert await store.session_runs(first.project_id + 1, "s", after="", limit=10) == []


async def test_a_project_is_created_once(store: Store) -> None:
    first, second = await asyncio.gather(store.ensure_project("a", "b"), store.ensure_project("a", "b"))
    assert first == second
    assert await store.find_project("a", "c") is None
    await store.set_capture(first.id, "metadata_only", "redacted", 0.05)
    changed = await store.project(first.id)
    assert changed is not None
    assert changed.capture == "metadata_only"
    assert (changed.capture_failed, changed.capture_sample) == ("redacted", 0.05)
    assert await store.projects() == [changed]


async def test_a_revoked_key_is_still_known_but_marked(store: Store) -> None:
    project = await store.ensure_project("a", "b")
    key = await store.add_key(project.id, "read", b"digest", "nk_abc")
    assert await store.find_key(b"digest") == key
    assert await store.find_key(b"other") is None
    assert await store.revoke_key(project.id + 1, key.id) is False, "a key of another project"
    assert await store.revoke_key(project.id, key.id) is True
    assert await store.revoke_key(project.id, key.id) is False
    found = await store.find_key(b"digest")
    assert found is not None
    assert found.revoked_at is not None
    assert await store.keys(project.id) == [found]


async def sign_in(store: Store, key: ApiKey, digest: bytes, *, minute: int) -> None:
    """Adds a session that was used in this minute; a key has three at most, and a project five."""
    at = f"2026-01-01T00:{minute:02}:00.000Z"
    session = ViewerSession(digest=digest, key=key, began_at=at, used_at=at)
    await store.add_viewer_session(session, most_of_key=3, most_of_project=5)


async def test_a_session_of_a_browser_is_found_with_its_key_until_it_is_ended(store: Store) -> None:
    project = await store.ensure_project("a", "b")
    key = await store.add_key(project.id, "read", b"digest", "nk_abc")
    await sign_in(store, key, b"one", minute=1)
    found = await store.viewer_session(b"one")
    began_at = "2026-01-01T00:01:00.000Z"
    assert found == ViewerSession(digest=b"one", key=key, began_at=began_at, used_at=began_at)
    await store.use_viewer_session(b"one", "2026-01-01T00:02:00.000Z")
    await store.revoke_key(project.id, key.id)
    found = await store.viewer_session(b"one")
    assert found is not None
    assert (found.began_at, found.used_at) == (began_at, "2026-01-01T00:02:00.000Z")
    assert found.key.revoked_at is not None
    await store.end_viewer_session(b"one")
    await store.end_viewer_session(b"one")
    assert await store.viewer_session(b"one") is None


async def test_the_session_that_was_used_longest_ago_makes_room_in_its_key_or_its_project(
    store: Store,
) -> None:
    async def are_left(*digests: bytes) -> list[bool]:
        return [await store.viewer_session(digest) is not None for digest in digests]

    project, other = [await store.ensure_project("a", name) for name in ("b", "c")]
    keys = [await store.add_key(project.id, "read", b"key-%d" % number, "nk_") for number in range(4)]
    stranger = await store.add_key(other.id, "read", b"stranger", "nk_")
    await sign_in(store, stranger, b"theirs", minute=0)
    for number in range(3):
        await sign_in(store, keys[0], b"%d" % number, minute=number)
    await store.use_viewer_session(b"0", "2026-01-01T00:10:00.000Z")
    await sign_in(store, keys[0], b"3", minute=3)
    assert await are_left(b"0", b"1", b"2", b"3") == [True, False, True, True]
    for number in range(1, 4):
        await sign_in(store, keys[number], b"of-%d" % number, minute=20 + number)
    assert await are_left(b"0", b"2", b"3", b"of-1", b"of-2", b"of-3") == [
        True,
        False,
        True,
        True,
        True,
        True,
    ]
    assert await are_left(b"theirs") == [True]


async def test_readers_are_not_held_up_by_a_stream_of_writes(store: Store) -> None:
    run = await make_run(store)

    async def write() -> None:
        for seq in range(200):
            await store.append(batch(run, seq, b"event"))

    writing = asyncio.create_task(write())
    seen = 0
    while not writing.done():
        page = await store.events(run.no, after=seen, limit_bytes=1 << 20)
        assert [seq for seq, _ in page] == list(range(seen + 1, seen + 1 + len(page)))
        seen += len(page)
    await writing
    assert (await store.events(run.no, after=199, limit_bytes=100))[0][0] == 200


@pytest.mark.parametrize("kind", store_kinds("pooler"))
async def test_what_was_acknowledged_is_there_after_reopening(kind: str, tmp_path: Path) -> None:
    async with STORES[kind](tmp_path) as store:
        run = await make_run(store)
        await store.append(batch(run, 0, b"one", steps=[row(1)]))
    async with STORES[kind](tmp_path) as store:
        assert await store.events(run.no, after=0, limit_bytes=100) == [(1, b"one")]
        assert len((await whole_trace(store, run.id))[1]) == 1


@pytest.mark.parametrize("kind", store_kinds("pooler"))
async def test_a_closed_store_says_so(kind: str, tmp_path: Path) -> None:
    async with STORES[kind](tmp_path) as store:
        pass
    with pytest.raises(StoreError, match="not open"):
        await store.projects()
    with pytest.raises(StoreError, match="not open"):
        await store.ensure_project("a", "b")


async def test_a_text_with_a_zero_byte_is_found_nowhere(store: Store) -> None:
    run = await make_run(store)
    await store.append(batch(run, 0, b"one", steps=[row(1)]))
    assert await store.run("run-1\0") is None
    assert await store.trace("\0", project_id=run.project_id, limit_bytes=9) is None
    assert await store.find_project("acme", "de\0mo") is None
    assert await store.find_flow(run.project_id, "\0") is None
    assert await store.attempts(run.no, "\0") == []
    assert await store.attempt_keys(run.no, "s\0") == []
    assert await store.newest_position(run.no, "\0s") is None
    assert await store.session_runs(run.project_id, "\0", after="", limit=9) == []


async def test_the_overview_tells_what_has_not_ended(store: Store) -> None:
    before = await store.overview()
    assert (before.open_runs, before.waiting, before.oldest_waiting_s, before.leases) == ({}, 0, 0.0, 0)
    old = str(uuid.UUID(int=(int(time.time() * 1000) - 60_000) << 80))
    await make_run(store, old)
    await make_run(store, "run-2", project="other")
    ended, paused = await make_run(store, "run-3"), await make_run(store, "run-4")
    await store.append(batch(ended, 0, b"{}", status="completed", ended_at="2026"))
    await store.append(batch(paused, 0, b"{}", status="paused"))
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


async def test_no_append_gives_back_what_was_spent(store: Store) -> None:
    run = await make_run(store)
    await store.append(batch(run, 0, b"one", spent_usd=Decimal(2)))
    for usd in ("-0.01", "NaN"):
        with pytest.raises(PermanentStoreError):
            await store.append(batch(run, 1, b"two", spent_usd=Decimal(usd)))
    project = await store.project(run.project_id)
    assert project is not None
    assert project.spent_usd == 2
    # What is held back is given back.
    await store.append(batch(run, 1, b"two", reserved_usd=Decimal(-1)))
    assert await store.events(run.no, after=1, limit_bytes=1000) == [(2, b"two")]
