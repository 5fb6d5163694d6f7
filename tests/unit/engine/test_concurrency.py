"""Loops in loops have a bounded number of workers, and each loop has as many as it may."""

import asyncio
from pathlib import Path

import pytest

from runglass.engine.concurrency import MOST_WORKERS, LoopWorkers, Workers
from runglass.store.sqlite import SqliteStore
from tests.unit.engine.conftest import open_house, start
from tests.unit.engine.test_left_behind import Silent

LEVELS, WIDE = 3, 40


async def test_loops_in_loops_begin_no_more_iterations_than_a_run_may_have(tmp_path: Path) -> None:
    steps = "{id: ask, type: llm, model: echo, prompt: a}"
    for level in range(LEVELS):
        steps = (
            f"{{id: l{level}, type: loop, over: list(range({WIDE})), max_concurrency: {WIDE},"
            f" steps: [{steps}]}}"
        )
    models = Silent()
    async with open_house(SqliteStore(tmp_path / "db"), models=models) as house, asyncio.timeout(60):
        before = len(asyncio.all_tasks())
        started = await start(house, f"- {steps}")
        await models.asked.wait()
        count = 0
        while (tasks := len(asyncio.all_tasks()) - before) != count:
            count = tasks
            await asyncio.sleep(0.2)
        # A worker that asks a model has a second task for that.
        assert MOST_WORKERS < tasks < 2.2 * MOST_WORKERS < WIDE**LEVELS / 10
        assert house.engine.cancel(started.id, reason="asked for")
        await started.outcome()


async def test_a_loop_that_began_alone_gets_more_workers_when_others_have_ended() -> None:
    workers = Workers()
    workers.count = MOST_WORKERS
    loop = LoopWorkers(3, workers)
    going: list[int] = []
    items = iter(range(20))

    async def work() -> None:
        for item in items:
            loop.add()
            going.append(item)
            await asyncio.sleep(0)
            seen.append(len(going))
            going.remove(item)
            if item == 2:
                workers.count = 0

    seen: list[int] = []
    async with asyncio.timeout(10):
        await loop.run(work)
    assert seen[:3] == [1, 1, 1]
    assert max(seen) == 3
    assert len(seen) == 20
    await asyncio.sleep(0)
    assert workers.count == 0


async def test_workers_that_are_cut_off_are_counted_no_more() -> None:
    workers = Workers()
    loop = LoopWorkers(10, workers)
    items = iter(range(10))

    async def work() -> None:
        for item in items:
            loop.add()
            if item == 5:
                raise LookupError("the sixth one")
            await asyncio.sleep(60)

    async with asyncio.timeout(10):
        with pytest.raises(LookupError, match="sixth"):
            await loop.run(work)
    await asyncio.sleep(0)
    assert workers.count == 0
