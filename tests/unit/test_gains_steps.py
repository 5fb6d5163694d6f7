"""Gains in what a step costs that must not be lost: counts, never times."""

import sqlite3
from pathlib import Path

from runglass.store.records import Append
from runglass.store.sqlite.append import write_append
from runglass.store.sqlite.connections import Work
from runglass.store.sqlite.store import SqliteStore
from tests.unit.engine.conftest import open_harness, start

STEPS = 50
FLOW = "\n".join(f"- {{id: s{number}, type: passthrough}}" for number in range(STEPS))


class WatchedStore(SqliteStore):
    """Keeps its appends, and for each the statements that SQLite ran for it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, synchronous="NORMAL")
        self.appends: list[Append] = []
        self.statements: list[list[str]] = []

    async def append(self, batch: Append) -> None:
        self.appends.append(batch)
        await self.connections.write(self._watched(batch))

    def _watched(self, batch: Append) -> Work[None]:
        def work(db: sqlite3.Connection) -> None:
            ran: list[str] = []
            db.set_trace_callback(ran.append)
            try:
                write_append(db, batch)
            finally:
                db.set_trace_callback(None)
            self.statements.append(ran)

        return work

    async def tables_and_indexes_written(self, statement: str) -> int:
        def work(db: sqlite3.Connection) -> int:
            return sum(row[1] == "OpenWrite" for row in db.execute(f"EXPLAIN {statement}"))

        return await self.connections.write(work)


async def ran(store: WatchedStore) -> int:
    """Runs the flow; returns how many tables and indexes the run's row is written to in mid-run."""
    async with open_harness(store) as house:
        outcome = await (await start(house, FLOW, {"n": 1}, capture="metadata_only")).outcome()
        assert outcome.status == "completed"
        (move,) = [text for text in store.statements[STEPS // 2] if text.startswith("UPDATE run")]
        return await store.tables_and_indexes_written(move)


async def test_a_step_in_the_middle_of_a_run_costs_few_statements(tmp_path: Path) -> None:
    """The run's row without its indexes, two events, two states of steps, one checkpoint."""
    store = WatchedStore(tmp_path / "db")
    assert await ran(store) == 1, "no index of the run's row is written anew"
    middle = store.statements[5 : STEPS - 5]
    assert max(map(len, middle)) <= 6
