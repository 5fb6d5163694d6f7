"""Whatever a log tells, each store keeps rows and money as it adds up to, append by append."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from decimal import Decimal
from functools import reduce
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from runglass.log.money import ZERO, add_usd, subtract_usd
from runglass.log.trace import TERMINAL
from runglass.store.base import Store
from runglass.store.records import Append, AttemptKey, RunNumbers, RunRecord, StepRow
from tests.conformance.stores import ALL_STORES, store_kinds
from tests.examples import all_wanted, examples
from tests.laws.law import require
from tests.laws.log import Log
from tests.laws.stored import broken_as_a_whole, broken_by, broken_in_project, read_run, read_whole
from tests.records import new_run, there
from tests.reference_fold import JsonObject
from tests.run_logs import run_logs

PHASES = tuple(each for each in Phase if all_wanted() or each not in (Phase.shrink, Phase.explain))
"""A smaller log is not looked for in `make test`: that would take longer than a test may."""


def in_batches(events: list[bytes], chance: Random) -> Iterator[list[bytes]]:
    left = iter(events)
    while batch := list(itertools.islice(left, chance.randint(1, 4))):
        yield batch


def money(log: Log) -> tuple[Decimal, Decimal]:
    """What the run has spent, and what its open requests hold."""
    totals = log.fold.summary.totals
    spent = Decimal((totals and totals.cost_usd) or 0)
    steps = () if log.ended else log.fold.trace().steps
    return spent, reduce(add_usd, (Decimal(step.reservation.usd) for step in steps if step.reservation), ZERO)


async def write(store: Store, run_id: str, events: list[JsonObject], chance: Random) -> Log:
    """Writes the log by appends as an engine makes them, and holds the run to the laws after each."""
    project = await store.ensure_project("acme", "demo")
    flow = await store.put_draft(project.id, "flow", name=None, capture=None, source=b"{}")
    begun = events[0]
    run = await store.create_run(
        new_run(
            project.id,
            flow.id,
            id=run_id,
            version=begun["version"],
            trigger_type=begun["triggerType"],
            session_id=begun.get("sessionId"),
        )
    )
    told = [msgspec.json.encode({**event, "executionId": run_id, "flowId": flow.id}) for event in events]
    log = Log(run_id)
    for batch in in_batches(told, chance):
        head, before, (spent, held) = len(log.events), log.attempt_rows, money(log)
        for seq, data in enumerate(batch, head + 1):
            # A generated log may run any step again, at any time.
            list(log.add(seq, data))
        summary, (spent_now, held_now) = log.fold.summary, money(log)
        append = Append(
            run_no=run.no,
            head=head,
            fence=run.fence,
            events=batch,
            steps=[row for row in log.attempt_rows if row not in before],
            status=log.status,
            summary=msgspec.json.encode(summary),
            spent_usd=subtract_usd(spent_now, spent),
            reserved_usd=subtract_usd(held_now, held),
            ended_at=summary.completed_at if log.status in TERMINAL else None,
            numbers=RunNumbers.of(summary),
            log_bytes=sum(map(len, batch)),
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
    for step_id in {row.step_id for row in log.step_rows} | {"none"}:
        rows = [row for row in log.attempt_rows if row.step_id == step_id]
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
