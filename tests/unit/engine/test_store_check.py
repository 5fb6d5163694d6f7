"""A store that goes back under an engine: each run goes on from what the store has, none is forgotten."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from runglass.errors import StoreError
from tests.conformance.stores import batch
from tests.fakes import VirtualClock
from tests.faulty_store import FaultyStore, ReplacedStore
from tests.unit.engine.conftest import EngineHarness, open_harness

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


class Machine(NamedTuple):
    """An engine, and a copy of its store to which that goes back."""

    house: EngineHarness
    store: ReplacedStore
    gate: asyncio.Event
    copy: sqlite3.Connection

    def keep(self) -> None:
        """Copies the store as it is."""
        with closing(sqlite3.connect(self.store.connections.path)) as database:
            database.backup(self.copy)

    def go_back(self) -> None:
        """Makes the store what it was when it was copied."""
        with closing(sqlite3.connect(self.store.connections.path)) as database:
            self.copy.backup(database)


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    clock = GatedClock()
    store = ReplacedStore(tmp_path / "db")
    with closing(sqlite3.connect(":memory:")) as copy:
        async with open_harness(store, clock=clock) as house:
            yield Machine(house, store, clock.gate, copy)


async def going_run(machine: Machine) -> str:
    """A run that had four events when the store was copied, and has gone on since."""
    run_id = (await machine.house.start(FIRST + HOLD)).id
    await machine.house.follow(run_id, until=4)
    machine.keep()
    machine.gate.set()
    await machine.house.follow(run_id, until=8)
    return run_id


async def ended_run(machine: Machine) -> str:
    """A run that had four events when the store was copied, and has ended since."""
    started = await machine.house.start(FIRST)
    await machine.house.follow(started.id, until=4)
    machine.keep()
    machine.gate.set()
    await started.outcome()
    return started.id


async def test_a_segment_of_which_the_store_has_less_is_cut_off_and_goes_on_from_there(
    machine: Machine,
) -> None:
    run_id = await going_run(machine)
    machine.go_back()
    await machine.house.engine.claims.keep_lease()
    await machine.house.engine.active.join(run_id)
    assert machine.store.lost == {run_id: 8}
    await machine.house.engine.claims.keep_lease()
    await machine.house.follow(run_id, until=8)


async def test_a_run_that_had_ended_and_goes_on_again_is_taken_up(machine: Machine) -> None:
    run_id = await ended_run(machine)
    machine.go_back()
    await machine.house.engine.claims.keep_lease()
    assert not machine.house.engine.active.is_active(run_id), "it might have been created a moment ago"
    await machine.house.engine.claims.keep_lease()
    await machine.house.follow(run_id)


async def test_a_run_whose_append_is_refused_is_let_go_and_still_cancelled(machine: Machine) -> None:
    run_id = await going_run(machine)
    machine.go_back()
    assert machine.house.engine.active.cancel(run_id, reason="enough")
    await machine.house.engine.active.join(run_id)
    assert (await machine.house.run_of(run_id)).head == 4, "what is behind the store's head was refused"
    assert machine.store.lost == {}
    await machine.house.engine.claims.keep_lease()
    assert machine.store.lost == {run_id: 8}, "that it was about to end hides no loss"
    await machine.house.follow(run_id)
    run = await machine.house.run_of(run_id)
    assert run.status == "cancelled"


async def test_a_run_of_another_process_is_left_to_it(machine: Machine) -> None:
    run_id = (await machine.house.start(FIRST)).id
    await machine.house.follow(run_id, until=4)
    run = await machine.house.run_of(run_id)
    taking = "UPDATE run SET owner = 'another', fence = fence + 1"
    await machine.house.store.connections.write(lambda db: db.execute(taking))
    await machine.house.store.hold_lease("another", until="2999-01-01", renew=False)
    machine.gate.set()
    await machine.house.engine.active.join(run_id)
    for _ in range(3):
        await machine.house.engine.claims.keep_lease()
    assert not machine.house.engine.active.is_active(run_id)
    assert len(machine.house.engine.active.orphaned) == 0
    assert (await machine.house.run_of(run_id)).head == run.head


async def test_a_run_that_another_process_has_taken_elsewhere_has_gone_back_however_long_it_is(
    machine: Machine,
) -> None:
    run_id = await ended_run(machine)
    had = await machine.house.stored_events(await machine.house.run_of(run_id))
    machine.go_back()
    store, owner = machine.house.store, machine.house.engine.active.owner
    await store.release_run(run_id, owner)
    await store.hold_lease("another", until="2999-01-01", renew=False)
    (run,) = await store.claim_runs("another", now="2026-01-01", limit=1)
    other = [data.replace(b'"at":"2', b'"at":"3') for data in had[3:]]
    await store.append(batch(run, 4, *other, *other))
    await machine.house.engine.claims.keep_lease()
    assert machine.store.lost == {}, "nobody looks at runs that have ended while the database is the same"
    machine.store.generation += 1
    with FaultyStore(machine.store) as faults:
        faults.fail("note_setback", StoreError("the store is away"))
        with pytest.raises(StoreError, match="is away"):
            await machine.house.engine.claims.keep_lease()
    await machine.house.engine.claims.keep_lease()
    assert machine.store.lost == {run_id: len(had)}, "a loss that could not be noted is looked for again"


async def test_a_run_that_is_as_it_was_is_no_loss_though_its_content_was_removed(machine: Machine) -> None:
    run_id = await ended_run(machine)
    run = await machine.house.run_of(run_id)
    before = await machine.house.stored_events(run)
    stripped = await machine.house.store.strip_content([run.no], None, limit_rows=99, limit_bytes=1 << 20)
    assert stripped == (1, None)
    assert await machine.house.stored_events(run) != before
    machine.store.generation += 1
    await machine.house.engine.claims.keep_lease()
    assert machine.store.lost == {}
