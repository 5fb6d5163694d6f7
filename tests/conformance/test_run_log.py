"""What every store must do with appends, all or nothing, and with the rows and the money that follow."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from functools import reduce
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from runglass.errors import PermanentStoreError, WrongExpectedVersion
from runglass.log.money import ZERO, add_usd, subtract_usd
from runglass.log.trace import TERMINAL
from runglass.store.base import Store
from runglass.store.records import AttemptKey, Checkpoint, RunNumbers, RunRecord, StepRow
from tests.conformance.stores import ALL_STORES, batch, make_run, row, run_with, store_kinds, whole_trace
from tests.examples import all_wanted, examples
from tests.laws.law import require
from tests.laws.log import Log
from tests.laws.stored import broken_as_a_whole, broken_by, broken_in_project, read_run, read_whole
from tests.records import there
from tests.reference_fold import JsonObject
from tests.run_logs import run_logs


@pytest.mark.parametrize("wrong", [{"head": 0}, {"head": 1}, {"head": 3}, {"fence": 0}])
async def test_an_append_on_another_head_or_with_an_old_fence_is_refused_and_writes_nothing(
    store: Store, wrong: dict[str, int]
) -> None:
    run = await run_with(store, b"one", b"two")
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
    run = await run_with(store, b"1", checkpoints=[Checkpoint("s", "0,3", b'{"a":1}')])
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
    large = b"0" * 700_000
    old = [Checkpoint("s", str(number), large) for number in range(3)]
    size = 3 * len(large)
    first = [*old, Checkpoint("t", "", b"1")]
    run = await run_with(store, b"1", checkpoints=first, open_bytes=size)
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
    data = [b"%d" % number for number in range(1_100)]
    steps = [row(number // 2, attempt=1 + number % 2) for number in range(2, 1_102)]
    run = await run_with(store, *data, steps=steps)
    assert await store.events(run.no, after=0, limit_bytes=1 << 20) == [*enumerate(data, 1)]
    _, attempts = await store.attempt_page(run.no, after=(0, 0), limit_bytes=1 << 20)
    assert [StepRow(*attempt) for attempt in attempts] == steps


PHASES = tuple(each for each in Phase if all_wanted() or each not in (Phase.shrink, Phase.explain))
"""A smaller log is not looked for in `make test`: that would take longer than a test may."""


def money(log: Log) -> tuple[Decimal, Decimal]:
    """What the run has spent, and what its open requests hold."""
    totals = log.fold.summary.totals
    spent = Decimal((totals and totals.cost_usd) or 0)
    steps = () if log.ended else log.fold.trace().steps
    return spent, reduce(add_usd, (Decimal(step.reservation.usd) for step in steps if step.reservation), ZERO)


async def write(store: Store, run_id: str, events: list[JsonObject], chance: Random) -> Log:
    """Writes the log by appends as an engine makes them, and holds the run to the laws after each."""
    begun = events[0]
    about = {"version": begun["version"], "session_id": begun.get("sessionId")}
    run = await make_run(store, run_id, trigger_type=begun["triggerType"], **about)
    told = (msgspec.json.encode({**event, "executionId": run_id, "flowId": run.flow_id}) for event in events)
    log = Log(run_id)
    while part := list(itertools.islice(told, chance.randint(1, 4))):
        head, before, (spent, held) = len(log.events), log.attempt_rows, money(log)
        for seq, data in enumerate(part, head + 1):
            # A generated log may run any step again, at any time.
            list(log.add(seq, data))
        summary, (spent_now, held_now) = log.fold.summary, money(log)
        append = batch(
            run,
            head,
            *part,
            steps=[row for row in log.attempt_rows if row not in before],
            status=log.status,
            summary=msgspec.json.encode(summary),
            spent_usd=subtract_usd(spent_now, spent),
            reserved_usd=subtract_usd(held_now, held),
            ended_at=summary.completed_at if log.status in TERMINAL else None,
            numbers=RunNumbers.of(summary),
            log_bytes=sum(map(len, part)),
        )
        await store.append(append)
        require(broken_by(log, await read_run(store, run_id)))
    require(broken_as_a_whole(log, await read_whole(store, run_id)))
    await require_same_in_pages(store, run, log, limit_bytes=chance.choice([1, 600, 3_000]))
    return log


async def require_same_in_pages(store: Store, run: RunRecord, log: Log, *, limit_bytes: int) -> None:
    """What is read in pages of so many bytes, or by step, is the log, its steps and all their attempts."""
    limit = {"limit_bytes": limit_bytes}

    async def attempts(last: Sequence[Any]) -> Sequence[Any]:
        now, page = await store.attempt_page(run.no, after=(last[0], last[3]), **limit)
        assert (now.id, now.head) == (run.id, len(log.events))
        return page

    async def in_pages(read: Callable[[Any], Awaitable[Sequence[Any]]]) -> list[Any]:
        found: list[Any] = []
        while page := await read(found[-1] if found else (0, "", "", 0)):
            assert sum(len(row[-1]) for row in page[:-1]) < limit_bytes
            found += page
        return found

    events = await in_pages(lambda last: store.events(run.no, after=last[0], **limit))
    steps = await in_pages(lambda last: store.trace_page(run.no, after=last[0], **limit))
    assert events == list(enumerate(log.events, 1))
    assert steps == [(row.position, row.data) for row in log.step_rows]
    assert [StepRow(*row) for row in await in_pages(attempts)] == log.attempt_rows
    opened = there(await store.trace(run.id, project_id=run.project_id, limit_bytes=limit_bytes))
    assert opened.steps == await store.trace_page(run.no, after=0, **limit)
    for step_id in {each.step_id for each in log.step_rows} | {"none"}:
        rows = [each for each in log.attempt_rows if each.step_id == step_id]
        keys = await store.attempt_keys(run.no, step_id)
        assert keys == [AttemptKey(row.position, row.loop_path, row.attempt) for row in rows]
        data = await store.attempt_data(run.no, keys[::-1], **limit)
        assert data == [row.data for row in rows][::-1][: len(data)]
        assert sum(map(len, data[:-1])) < limit_bytes
        assert len(data) == len(keys) or sum(map(len, data)) >= limit_bytes
    open_steps = [row for row in log.step_rows if row.status in ("running", "failed")]
    assert await store.open_steps(run.no) == (open_steps, len(log.step_rows))
    assert await store.last_position(run.no) == len(log.step_rows)


@pytest.mark.parametrize("kind", store_kinds())
def test_every_log_is_kept_with_all_that_follows_from_it(kind: str, tmp_path: Path) -> None:
    numbers = itertools.count(1)
    logs: dict[str, Log] = {}

    @settings(examples(8, of=60), phases=PHASES)
    @given(events=run_logs(), seed=st.integers(0, 2**32))
    def check(events: list[JsonObject], seed: int) -> None:
        async def written() -> None:
            async with ALL_STORES[kind](tmp_path) as store:
                run_id = f"run-{next(numbers):03d}"
                logs[run_id] = await write(store, run_id, events, Random(seed))
                project = there(await store.find_project("acme", "demo"))
                require(await broken_in_project(store, project, logs))

        asyncio.run(written())

    check()
