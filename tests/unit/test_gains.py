"""Gains in speed that must not be lost, told by counts."""

from pathlib import Path

from runglass.store.records import Append
from runglass.store.sqlite.store import SqliteStore
from tests.unit.engine.conftest import open_harness, start


class CountingStore(SqliteStore):
    appends = 0
    rows = 0

    async def append(self, batch: Append) -> None:
        self.appends += 1
        self.rows += len(batch.steps)
        await super().append(batch)


async def test_a_step_costs_one_append_with_two_states_of_it(tmp_path: Path) -> None:
    """The end of a step travels with the start of the next one; without that it would be two appends."""
    flow = "\n".join(f"- {{id: s{number}, type: passthrough}}" for number in range(200))
    store = CountingStore(tmp_path / "db", synchronous="NORMAL")
    async with open_harness(store) as house:
        await (await start(house, flow, {"n": 1}, capture="metadata_only")).outcome()
    assert store.appends <= 205
    assert store.rows <= 405


async def test_the_thousandth_iteration_costs_what_the_first_did(tmp_path: Path) -> None:
    sizes: list[int] = []

    class MeasuringStore(SqliteStore):
        async def append(self, batch: Append) -> None:
            parts = (*batch.events, *(row.data for row in batch.steps), batch.summary)
            kept = (
                checkpoint.data for checkpoint in batch.checkpoints if not checkpoint.step_id.endswith("?")
            )
            sizes.append(sum(map(len, (*parts, *kept))))
            await super().append(batch)

    flow = "- {id: l, type: loop, over: 'list(range(1200))', steps: [{id: s, type: passthrough}]}"
    async with open_harness(MeasuringStore(tmp_path / "db", synchronous="NORMAL")) as house:
        await (await start(house, flow, {}, capture="metadata_only")).outcome()
    assert max(sizes[1000:1100]) <= 1.1 * max(sizes[50:150]), "bytes to the store per step do not grow"
