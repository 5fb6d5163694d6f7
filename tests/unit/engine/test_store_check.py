"""A store that goes back under an engine: each run goes on from what the store has, none is forgotten."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from runglass.store.sqlite.store import SqliteStore
from tests.fakes import VirtualClock
from tests.unit.engine.conftest import EngineHarness, follow, open_harness, start

FIRST = "- {id: first, type: wait, ms: 50000}\n"
HOLD = "- {id: hold, type: wait, ms: 60000}\n"


class GatedClock(VirtualClock):
    """A wait of 50 s lasts until the gate is open, one of 60 s until it is cut off."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        if seconds == 50:
            await self.gate.wait()
        elif seconds == 60:
            await asyncio.Event().wait()
        await super().sleep(seconds)


Rows = dict[str, list[tuple[object, ...]]]


class Machine(NamedTuple):
    """An engine, and a copy of its store to which that goes back."""

    house: EngineHarness
    gate: asyncio.Event
    copy: Rows

    async def keep(self) -> None:
        """Copies the store as it is."""
        self.copy.update(await self.house.store.connections.read(_rows_of_all))

    async def go_back(self) -> None:
        """Makes the store what it was when it was copied."""
        await self.house.store.connections.write(lambda db: _restore(db, self.copy))

    async def head(self, run_id: str) -> int:
        run = await self.house.store.run(run_id)
        assert run is not None
        return run.head

    async def keep_lease_until_idle(self, run_id: str) -> None:
        """Renews the lease; what is cut off by that has ended then."""
        await self.house.engine.keep_lease()
        await self.house.engine.join(run_id)


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    clock = GatedClock()
    store = SqliteStore(tmp_path / "db", synchronous="NORMAL")
    async with open_harness(store, clock=clock, shares_store=True) as house:
        yield Machine(house, clock.gate, {})


def _rows_of_all(db: sqlite3.Connection) -> Rows:
    tables = db.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'audit'"
    )
    return {name: db.execute(f"SELECT * FROM {name}").fetchall() for (name,) in tables.fetchall()}


def _restore(db: sqlite3.Connection, copy: Rows) -> None:
    db.execute("PRAGMA defer_foreign_keys = ON")
    for name, rows in copy.items():
        db.execute(f"DELETE FROM {name}")
        for row in rows:
            db.execute(f"INSERT INTO {name} VALUES ({', '.join('?' * len(row))})", row)


async def events(machine: Machine, run_id: str) -> list[tuple[int, bytes]]:
    run = await machine.house.store.run(run_id)
    assert run is not None
    return await machine.house.store.events(run.no, after=0, limit_bytes=1 << 20)


async def test_a_segment_of_which_the_store_has_less_is_cut_off_and_goes_on_from_there(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = (await start(machine.house, FIRST + HOLD)).id
    await follow(machine.house, run_id, until=3)
    await machine.keep()
    machine.gate.set()
    await follow(machine.house, run_id, until=7)
    before = await events(machine, run_id)
    await machine.go_back()
    await machine.keep_lease_until_idle(run_id)
    assert f"run {run_id} has 3 events, and {len(before)} were stored" in caplog.text
    await machine.house.engine.keep_lease()
    await follow(machine.house, run_id, until=7)
    after = await events(machine, run_id)
    assert [seq for seq, _ in after] == list(range(1, len(after) + 1))
    assert after[:3] == before[:3]
    assert machine.house.engine.is_active(run_id)


async def test_a_run_that_had_ended_and_goes_on_again_is_taken_up(machine: Machine) -> None:
    started = await start(machine.house, FIRST)
    await follow(machine.house, started.id, until=3)
    await machine.keep()
    machine.gate.set()
    await started.outcome()
    await machine.go_back()
    # Twice: it might have been created a moment ago.
    await machine.house.engine.keep_lease()
    assert not machine.house.engine.is_active(started.id)
    await machine.house.engine.keep_lease()
    await follow(machine.house, started.id)
    run = await machine.house.store.run(started.id)
    assert run is not None
    assert run.status == "completed"


async def test_a_run_whose_append_is_refused_is_let_go_and_still_cancelled(machine: Machine) -> None:
    run_id = (await start(machine.house, FIRST + HOLD)).id
    await follow(machine.house, run_id, until=3)
    await machine.keep()
    machine.gate.set()
    await follow(machine.house, run_id, until=7)
    await machine.go_back()
    assert machine.house.engine.cancel(run_id, reason="enough")
    await machine.house.engine.join(run_id)
    assert await machine.head(run_id) == 3, "what is behind the store's head was refused"
    await machine.house.engine.keep_lease()
    await follow(machine.house, run_id)
    run = await machine.house.store.run(run_id)
    assert run is not None
    assert run.status == "cancelled"


async def test_a_run_of_another_process_is_left_to_it(machine: Machine, tmp_path: Path) -> None:
    run_id = (await start(machine.house, FIRST)).id
    await follow(machine.house, run_id, until=3)
    run = await machine.house.store.run(run_id)
    assert run is not None
    await machine.house.store.connections.write(
        lambda db: db.execute("UPDATE run SET owner = 'another', fence = fence + 1")
    )
    await machine.house.store.hold_lease("another", until="2999-01-01", renew=False)
    machine.gate.set()
    await machine.house.engine.join(run_id)
    for _ in range(3):
        await machine.house.engine.keep_lease()
    assert not machine.house.engine.is_active(run_id)
    assert machine.house.engine.orphaned == 0
    assert await machine.head(run_id) == run.head
