"""Loops in loops have a bounded number of workers, and each loop has as many as it may."""

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

from runglass.engine.models.gateway import ModelAnswer, ModelGateway, ModelRequest
from runglass.engine.steps.concurrency import (
    MOST_WORKERS,
    LoopWorkers,
    Workers,
    side_by_side,
)
from runglass.errors import StepFailure
from runglass.limits import pace as pacing
from runglass.store.sqlite.store import SqliteStore
from tests.fakes import VirtualClock
from tests.unit.engine.conftest import open_harness, start
from tests.unit.engine.test_left_behind import Silent

LEVELS, WIDE = 3, 40


class Counting(Silent):
    """Counts how often it was asked; `all_asked` once that is as often as may be."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.all_asked = asyncio.Event()

    async def complete(self, *args: Any, **more: Any) -> ModelAnswer:
        self.count += 1
        if self.count > MOST_WORKERS:
            self.all_asked.set()
        return await super().complete(*args, **more)


async def test_loops_in_loops_begin_no_more_iterations_than_a_run_may_have(tmp_path: Path) -> None:
    steps = "{id: ask, type: llm, model: echo, prompt: a}"
    for level in range(LEVELS):
        steps = (
            f"{{id: l{level}, type: loop, over: list(range({WIDE})), max_concurrency: {WIDE},"
            f" steps: [{steps}]}}"
        )
    models = Counting()
    async with open_harness(SqliteStore(tmp_path / "db"), models=models) as house, asyncio.timeout(60):
        started = await start(house, f"- {steps}")
        # Each worker, and the first one of all, is at one innermost iteration, or on its way to one.
        await models.all_asked.wait()
        # While another run goes through all of it, one that was about to begin would have begun.
        await (await start(house, "- {id: a, type: passthrough}")).outcome()
        assert models.count == MOST_WORKERS + 1
        assert house.engine.cancel(started.id, reason="asked for")
        await started.outcome()


async def test_many_branches_that_begin_at_once_let_other_projects_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, many = VirtualClock(), 300
    monkeypatch.setattr(pacing, "clock", clock)
    monkeypatch.setattr(pacing, "last_seen", [(0, -math.inf)] * 2)
    branches = ", ".join(f"b{number}: [{{id: s{number}, type: passthrough}}]" for number in range(many))
    async with open_harness(SqliteStore(tmp_path / "db")) as house:
        pacing.note_activity(-1)
        started = await start(house, f"- {{id: all, type: parallel, branches: {{{branches}}}}}")
        assert (await started.outcome()).status == "completed"
    owed_s = pacing.REST * pacing.ITERATION_S * (many - pacing.AT_ONCE)
    assert sum(clock.slept_s) > owed_s - 2 * pacing.SHORTEST_REST_S


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
            await asyncio.Event().wait()

    with pytest.raises(LookupError, match="sixth"):
        await loop.run(work)
    await asyncio.sleep(0)
    assert workers.count == 0


async def test_a_cancellation_that_meets_a_failure_is_raised_once_and_after_all_have_ended() -> None:
    cut_off, may_end, told = asyncio.Event(), asyncio.Event(), []

    async def fails() -> None:
        raise LookupError("inside")

    async def ends_slowly() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cut_off.set()
            await may_end.wait()
            told.append("ended")

    async def cancelled() -> None:
        with pytest.raises(asyncio.CancelledError):
            await side_by_side([fails, ends_slowly])
        # A cancellation is for what is awaited when it comes, and not for what is awaited next.
        await asyncio.sleep(0)
        told.append("went on")

    task = asyncio.create_task(cancelled())
    await cut_off.wait()
    task.cancel()
    await asyncio.sleep(0)
    may_end.set()
    await task
    assert told == ["ended", "went on"]


class SlowToEnd(ModelGateway):
    """Asked to `hang`, ends after `bad` beside it has failed and the iteration of `boom` has ended since."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self._hanging, self._ending = asyncio.Event(), asyncio.Event()
        self._iteration = asyncio.Future[asyncio.Task[Any] | None]()

    async def complete(self, request: ModelRequest, *args: Any, **more: Any) -> ModelAnswer:
        asked = request.messages[-1]["content"]
        self.asked.append(asked)
        match asked:
            case "hang":
                self._hanging.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    self._ending.set()
                    iteration = await self._iteration
                    assert iteration is not None
                    await asyncio.wait([iteration])
            case "bad":
                await self._hanging.wait()
            case "boom":
                self._iteration.set_result(asyncio.current_task())
                await self._ending.wait()
        raise StepFailure("BOOM", "it was to fail", may_retry=False)


async def test_a_loop_that_has_failed_asks_no_model_any_more(tmp_path: Path) -> None:
    """Inside of it another one is being cut off at that moment, and would go on by its `on_error`."""
    flow = """
- id: outer
  type: loop
  over: list(range(2))
  max_concurrency: 2
  steps:
    - id: which
      type: condition
      if: item == 0
      then: [{id: boom, type: llm, model: echo, prompt: boom}]
      else:
        - id: inner
          type: loop
          on_error: continue
          over: list(range(2))
          as: inside
          max_concurrency: 2
          steps:
            - id: either
              type: condition
              if: inside == 0
              then: [{id: hang, type: llm, model: echo, prompt: hang}]
              else: [{id: bad, type: llm, model: echo, prompt: bad}]
        - {id: after, type: llm, model: echo, prompt: after}
"""
    models = SlowToEnd()
    house = open_harness(SqliteStore(tmp_path / "db", synchronous="NORMAL"), models=models)
    async with house as opened, asyncio.timeout(60):
        started = await start(opened, flow)
        outcome = await started.outcome()
    assert (outcome.status, outcome.step_id) == ("failed", "boom")
    assert sorted(models.asked) == ["bad", "boom", "hang"]
