"""Loops in loops have a bounded number of workers, and each loop has as many as it may."""

import asyncio
from pathlib import Path
from typing import Any

from runglass.engine.models.gateway import ModelCallFailed, ModelRequest
from runglass.engine.models.model_types import ProviderResponse
from runglass.engine.steps.concurrency import MOST_WORKERS, LoopWorkers, Workers
from runglass.store.sqlite.store import SqliteStore
from tests.faulty_store import FaultyStore
from tests.unit.engine.conftest import EngineHarness, open_harness, run_of, run_to_end, start
from tests.unit.engine.fake_models import FakeModels, never

LEVELS, WIDE = 3, 40


async def test_loops_in_loops_begin_no_more_iterations_than_a_run_may_have(tmp_path: Path) -> None:
    steps = "{id: ask, type: llm, model: echo, prompt: a}"
    for level in range(LEVELS):
        steps = (
            f"{{id: l{level}, type: loop, over: list(range({WIDE})), max_concurrency: {WIDE},"
            f" steps: [{steps}]}}"
        )
    models = FakeModels()
    async with open_harness(SqliteStore(tmp_path / "db"), models=models) as house, asyncio.timeout(60):
        started = await start(house, f"- {steps}")
        # Each worker, and the first one of all, is at one innermost iteration, or on its way to one.
        while models.calls <= MOST_WORKERS:
            models.asked.clear()
            await models.asked.wait()
        # While another run goes through all of it, one that was about to begin would have begun.
        await (await start(house, "- {id: a, type: passthrough}")).outcome()
        assert models.calls == MOST_WORKERS + 1
        assert house.engine.active.cancel(started.id, reason="asked for")
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
    await loop.run(work)
    assert seen[:3] == [1, 1, 1]
    assert max(seen) == 3
    assert len(seen) == 20
    await asyncio.sleep(0)
    assert workers.count == 0


class SlowToEnd(FakeModels):
    """Asked to `hang`, ends after `bad` beside it has failed and the iteration of `boom` has ended since."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts: list[str] = []
        self._hanging, self._ending = asyncio.Event(), asyncio.Event()
        self._iteration = asyncio.Future[asyncio.Task[Any] | None]()

    async def answer(self, request: ModelRequest) -> ProviderResponse:
        prompt = request.messages[-1]["content"]
        self.prompts.append(prompt)
        match prompt:
            case "hang":
                self._hanging.set()
                try:
                    await never()
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
        raise ModelCallFailed("BOOM", "it was to fail", may_be_charged=False, may_retry=False)


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
    assert sorted(models.prompts) == ["bad", "boom", "hang"]


EMPTY_LOOPS = """
- id: outer
  type: loop
  over: initial["lists"]
  steps: [{id: inner, type: loop, over: item, steps: [{id: never, type: passthrough}]}]
"""
LEAVES = ", ".join(f"{{id: n{number}, type: passthrough}}" for number in range(300))
SKIPPED = f"""
- id: outer
  type: loop
  over: initial["lists"]
  steps:
    - id: choice
      type: condition
      if: 'False'
      then: [{LEAVES}]
"""


async def test_events_go_to_the_store_while_more_of_them_come(house: EngineHarness) -> None:
    appends = FaultyStore(house.store).calls("append")
    started = await start(house, EMPTY_LOOPS, {"lists": [[]] * 3_000})
    assert (await started.outcome()).status == "completed"
    sizes = [len(call.args[0].events) for call in appends]
    assert sum(sizes) >= 3_000
    assert max(sizes) < 1_000


async def test_a_log_of_skipped_steps_has_an_end(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "db", synchronous="NORMAL")
    async with open_harness(store, run_log_bytes=100_000) as house:
        ran = await run_to_end(house, SKIPPED, {"lists": [[]] * 10})
        assert ran.outcome.status == "failed"
        assert (ran.outcome.error or {})["limit"] == "log"
        run = await run_of(house, ran.id)
        assert 100_000 < run.log_bytes < 300_000
