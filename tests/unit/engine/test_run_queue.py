"""A limit on runs that go on at once: the others wait in the store, and survive a crash."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from runglass.config.settings import Settings
from runglass.engine.journal.run_spec import Segment
from runglass.engine.run.active_runs import StartedRun
from runglass.engine.steps.executor import StepExecutor
from runglass.errors import APIError, RunUnreadable, StoreError
from runglass.limits.slots import RunSlots
from runglass.store.leases import QueuedRuns
from runglass.tails.run_list import follow_runs
from runglass.wire.query import RunQuery
from tests.faulty_store import FaultyStore
from tests.unit.engine.conftest import EngineHarness, open_harness
from tests.unit.engine.fake_models import never
from tests.unit.engine.test_unreadable import UPDATES, spoil

FLOW = """
  - {id: a, type: code, code: 'return {}'}
  - {id: b, type: passthrough}
"""


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[EngineHarness]:
    """An engine with one slot, and room for three runs that wait."""
    async with open_harness(tmp_path / "db", max_concurrent_runs=1, max_queued_runs=3) as house:
        yield house


async def start_held(house: EngineHarness, monkeypatch: pytest.MonkeyPatch) -> StartedRun:
    """A run that has the slot, where no attempt can begin."""
    monkeypatch.setattr(StepExecutor, "run", lambda *_: never())
    first = await house.start(FLOW)
    await house.follow(first.id, until=1)
    return first


async def test_who_follows_the_list_hears_at_once_of_a_run_that_waits(
    house: EngineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await start_held(house, monkeypatch)
    run = await house.run_of(first.id)
    pages = follow_runs(
        house.store, house.bus, run.project_id, RunQuery(), after=0, idle_s=3600.0, poll_s=3600.0
    )
    async with aclosing(pages):
        assert [each.run_id for each in (await anext(pages)).changed] == [first.id]
        second = await house.start(FLOW)
        assert [each.run_id for each in (await anext(pages)).changed] == [second.id]


async def test_who_waits_for_a_queued_run_that_cannot_be_read_is_told(
    house: EngineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await start_held(house, monkeypatch), await house.start(FLOW)
    looked = FaultyStore(house.store).hold("run", when=lambda run_id: run_id == second.id, answered=True)
    outcome = asyncio.ensure_future(second.outcome())
    await looked.reached()
    spoil(house.store.connections.path, UPDATES["request"], b"garbage", second.id)
    assert house.engine.active.cancel(first.id, reason="enough")
    looked.let_go()
    async with asyncio.timeout(30):
        with pytest.raises(RunUnreadable, match=second.id):
            await outcome


async def test_a_paused_run_takes_no_place_and_waits_for_one_in_its_turn_if_there_is_room(
    house: EngineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, beyond = [await house.start_paused(FLOW) for _ in range(2)]
    first, second = await start_held(house, monkeypatch), await house.start(FLOW)
    run = await house.run_of(steps.id)
    paused = await house.engine.idle.paused(run)
    resumed = await house.engine.resume(paused, paused.spec, Segment(first=1))
    with pytest.raises(APIError, match="taken up already"):
        await house.engine.resume(paused, paused.spec, Segment(first=1))
    third = await house.start(FLOW)
    with pytest.raises(APIError, match="nothing was started"):
        await house.resume(beyond.id, Segment(first=1))
    assert not house.engine.active.is_active(beyond.id)
    for each in (steps, beyond):
        assert (await house.run_of(each.id)).status == "paused"
    monkeypatch.undo()
    appends = FaultyStore(house.store).hold("append", when=lambda batch: batch.run_no == run.no)
    house.engine.active.cancel(first.id, reason="enough")
    await appends.reached()
    assert (await house.run_of(second.id)).status == "completed"
    assert (await house.run_of(third.id)).status == "pending"
    appends.let_go()
    for each in (resumed, third):
        assert (await each.outcome()).status == "completed"


FLOOD, GUEST = 1, 2


def slots(most: int, **limits: Any) -> RunSlots:
    """The slots of so many runs, with room for ten that wait."""
    return RunSlots(Settings(max_concurrent_runs=most, max_queued_runs=10, **limits))


def emptied(queue: RunSlots) -> RunSlots:
    """The queue, once a claim has found that nothing waits in the store."""
    with queue.claiming(None, 1):
        pass
    return queue


async def test_the_queue_of_one_project_does_not_delay_another() -> None:
    queue = slots(4)
    assert not queue.take(FLOOD), "a process before may have left something that waits"
    emptied(queue)
    while queue.take(FLOOD):
        pass
    for _ in range(10):
        queue.note_waiting(FLOOD)
    assert queue.claimable(100) is None
    assert queue.take(GUEST), "half of the slots are its own, whoever holds them"
    queue.note_waiting(GUEST)
    assert not queue.take(GUEST), "one of its runs came before"
    assert queue.claimable(100) == (GUEST, 1), "the second of its slots"
    with queue.claiming(GUEST, 1) as claimed:
        claimed.append(GUEST)
    assert queue.claimable(100) is None
    queue.give_back(GUEST)
    with queue.claiming(GUEST, 1):
        queue.note_waiting(FLOOD)
    assert queue.take(GUEST), "none of its runs waits any more"
    for _ in range(4):
        queue.give_back(FLOOD)
    assert queue.claimable(100) == (None, 2), "what is next of all is up to the store"


async def test_what_comes_during_a_claim_waits_for_the_next_one() -> None:
    queue = emptied(slots(3))
    queue.note_waiting(FLOOD)
    with queue.claiming(None, 2):
        assert queue.take(GUEST), "a slot that the claim does not want"
        assert not queue.take(GUEST)
        queue.note_waiting(GUEST)
    assert queue.claimable(100) == (None, 2)
    assert queue.take(FLOOD)
    assert not queue.take(GUEST)


async def test_a_claim_that_fails_is_made_again() -> None:
    queue = emptied(slots(3))
    queue.note_waiting(FLOOD)
    with pytest.raises(StoreError), queue.claiming(None, 3):
        raise StoreError("away")
    assert queue.claimable(100) == (None, 3)
    assert not queue.take(FLOOD)


async def test_a_line_is_full_for_its_project_alone_where_that_has_its_share() -> None:
    queue = slots(10, max_queued_runs_per_project=4)
    queue.require_room(FLOOD, QueuedRuns(9, 3, 2))
    queue.require_room(GUEST, QueuedRuns(10, 3, 2))
    with pytest.raises(APIError) as caught:
        queue.require_room(FLOOD, QueuedRuns(4, 4, 1))
    assert (caught.value.code, caught.value.status) == ("UNAVAILABLE", 503)
    assert caught.value.details == {"limit": "max_queued_runs_per_project", "value": 4}
    with pytest.raises(APIError, match="max_queued_runs"):
        slots(10).require_room(FLOOD, QueuedRuns(10, 5, 2))


async def test_runs_that_a_claim_will_take_at_once_do_not_fill_the_line() -> None:
    queue = slots(3, max_concurrent_runs_per_project=2, max_queued_runs_per_project=0)
    for coming in range(2):
        queue.require_room(FLOOD, QueuedRuns(coming, coming, 1))
    with pytest.raises(APIError, match="max_queued_runs_per_project"):
        queue.require_room(FLOOD, QueuedRuns(2, 2, 1))
    queue.hold(FLOOD)
    queue.hold(GUEST)
    queue.require_room(FLOOD, QueuedRuns(0, 0, 0))
    queue.hold(FLOOD)
    with pytest.raises(APIError, match="max_queued_runs_per_project"):
        queue.require_room(FLOOD, QueuedRuns(0, 0, 0))


async def test_a_run_that_cannot_be_stored_holds_no_place(house: EngineHarness) -> None:
    FaultyStore(house.store).fail("create_run", StoreError("the disk is full"))
    with pytest.raises(StoreError):
        await house.start(FLOW)
    assert house.engine.queue.held == 0
