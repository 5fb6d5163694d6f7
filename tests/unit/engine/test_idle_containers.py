"""Loops and conditions in which no step runs: what they record is bounded, and lets others go on."""

from pathlib import Path

from runglass.store.sqlite.store import SqliteStore
from tests.faulty_store import FaultyStore
from tests.unit.engine.conftest import EngineHarness, open_harness, read, run_of, start

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
        started = await start(house, SKIPPED, {"lists": [[]] * 10})
        ran = await read(house, started.id, await started.outcome())
        assert ran.outcome.status == "failed"
        assert (ran.outcome.error or {})["limit"] == "log"
        run = await run_of(house, started.id)
        assert 100_000 < run.log_bytes < 300_000
