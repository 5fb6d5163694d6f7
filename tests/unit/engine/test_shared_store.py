"""Several processes on one store: a run is executed by any of them, and reached from each."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from runglass.engine.journal.run_spec import Pause, RunSpec, Segment, SegmentSpec
from runglass.engine.run.active_runs import StartedRun
from runglass.engine.run.claims import CLAIMED_AT_ONCE, RETRY_S
from runglass.errors import APIError, CommitUncertain, FlowExecutionError, StoreError
from runglass.flows.parser import parse_flow
from runglass.log.events import FlowCancelled, event_type_of
from runglass.store.records import RunRecord
from tests.fakes import LEASE_S
from tests.faulty_store import FaultyStore
from tests.unit.engine.conftest import EngineHarness, open_harness
from tests.unit.engine.test_store_check import GatedClock
from tests.unit.engine.test_unreadable import UPDATES, spoil
from tests.waiting import until

HOLD = "- {id: hold, type: wait, ms: 60000}\n- {id: after, type: passthrough}\n"
WALK = """
- {id: a, type: code, code: 'return {"n": n + 1}'}
- id: c
  type: condition
  if: n > 5
  then: [{id: big, type: passthrough}]
  else: [{id: small, type: passthrough}]
- {id: z, type: code, code: 'return {"n": n * 10, "a": steps["a"]["n"]}'}
"""


class Machines(NamedTuple):
    """A process that only takes calls, and two that execute runs, on one store."""

    front: EngineHarness
    worker: EngineHarness
    other: EngineHarness


@pytest.fixture
async def machines(tmp_path: Path) -> AsyncIterator[Machines]:
    async with (
        open_harness(tmp_path / "db", clock=GatedClock(), executes_runs=False) as front,
        open_harness(front.store, beside=front) as worker,
        open_harness(front.store, beside=front) as other,
    ):
        yield Machines(front, worker, other)


async def walked(machines: Machines, run_id: str) -> RunRecord:
    """The run once the worker has taken it, unless another has, and its segment has ended."""
    await machines.worker.engine.claims.keep_lease()
    house = machines.front
    run = await house.run_of(run_id)
    while not run.ended and (run.status != "paused" or run.is_resuming):
        await house.follow(run_id, until=run.head + 1)
        run = await house.run_of(run_id)
    return run


async def test_a_process_that_is_refused_a_lease_claims_nothing(machines: Machines) -> None:
    started = await machines.front.start(WALK, {"n": 3})
    waiting = await machines.front.run_of(started.id)
    with FaultyStore(machines.worker.store) as faults:
        broken = StoreError("a migration has broken this program")
        faults.answer("hold_lease", False, times=1)
        faults.fail("hold_lease", broken, when=lambda *_, renew, **__: not renew)
        claims = faults.calls("claim_runs")
        with pytest.raises(StoreError, match="broken this program"):
            await machines.worker.engine.claims.keep_lease()
        looking = asyncio.create_task(machines.worker.engine.claims.watch_work())
        # Reading takes a thread, and more turns of the loop than a claim would take to begin.
        assert await machines.front.run_of(started.id) == waiting
        assert claims == []
        looking.cancel()
    await walked(machines, started.id)


async def test_a_lease_that_cannot_be_renewed_is_soon_tried_again(house: EngineHarness) -> None:
    faults = FaultyStore(house.store)
    faults.fail("hold_lease", StoreError("away"), times=2)
    renewals = faults.calls("hold_lease")
    keeping = asyncio.create_task(house.engine.claims.run_forever())
    await until(lambda: len(renewals) > 3)
    keeping.cancel()
    assert house.clock.slept_s[:4] == [LEASE_S / 3, RETRY_S, RETRY_S, LEASE_S / 3]


async def test_a_process_that_stops_claims_nothing_more(machines: Machines) -> None:
    waiting = await machines.front.run_of((await machines.front.start(WALK, {"n": 3})).id)
    engine = machines.worker.engine
    engine.claims.look()
    await engine.gate.close(0)
    await engine.claims.close()
    await engine.claims.keep_lease()
    assert await machines.front.run_of(waiting.id) == waiting


async def test_more_runs_than_one_claim_takes_begin_one_claim_after_the_other(machines: Machines) -> None:
    for _ in range(CLAIMED_AT_ONCE + 1):
        await machines.front.start(HOLD)
    claims = machines.worker.engine.claims
    claims.look()
    await claims.close()
    assert len(machines.worker.engine.active.tasks) == CLAIMED_AT_ONCE + 1


@pytest.mark.parametrize("most", ["max_queued_runs", "max_queued_runs_per_project"])
async def test_calls_that_come_at_once_find_no_more_room_than_there_is(tmp_path: Path, most: str) -> None:
    limits: dict[str, Any] = {"executes_runs": False, most: 5}
    async with (
        open_harness(tmp_path / "db", **limits) as front,
        open_harness(front.store, beside=front, **limits) as other,
    ):
        ends = await asyncio.gather(*(front.start(HOLD) for _ in range(20)), return_exceptions=True)
        assert sum(isinstance(end, StartedRun) for end in ends) == 5
        refused = [end for end in ends if not isinstance(end, StartedRun)]
        assert all(isinstance(end, APIError) and end.code == "UNAVAILABLE" for end in refused)
        with pytest.raises(APIError, match=f"`{most}` is 5"):
            await other.start(HOLD)


async def test_a_call_that_cannot_be_stored_gives_its_room_to_the_next(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "db", max_queued_runs=1, executes_runs=False) as front:
        faults = FaultyStore(front.store)
        failing = faults.hold("create_run", times=1, error=StoreError("the disk is full"))
        first = asyncio.create_task(front.start(HOLD))
        await failing.reached()
        faults.after("queued_runs", lambda _: failing.let_go(), times=1)
        second = asyncio.create_task(front.start(HOLD))
        with pytest.raises(StoreError):
            await first
        assert (await second).queued is not None


async def test_a_run_that_nobody_follows_by_steps_leaves_no_content_behind(machines: Machines) -> None:
    run_id = (await machines.front.start(WALK, {"n": 3}, capture="off")).id
    run = await walked(machines, run_id)
    for seq in range(1, run.head + 1):
        assert await machines.front.store.owed(run.no, seq) is None


async def paused_run(machines: Machines) -> RunRecord:
    started = await machines.front.start(WALK, {"n": 3}, segment=Segment(last=0))
    return await walked(machines, started.id)


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (1, 2), (0, 0)])
async def test_of_two_processes_that_resume_one_pause_one_does(
    machines: Machines, order: tuple[int, int]
) -> None:
    run = await paused_run(machines)
    houses = [machines[place] for place in order]
    both = [(house, await house.engine.idle.paused(run)) for house in houses]
    resuming = [house.engine.resume(paused, paused.spec, Segment(first=1)) for house, paused in both]
    got = await asyncio.gather(*resuming, return_exceptions=True)
    [refused] = [each for each in got if isinstance(each, BaseException)]
    assert isinstance(refused, FlowExecutionError)
    assert refused.code == "RUN_NOT_PAUSED"
    await walked(machines, run.id)
    assert (await machines.front.read(run.id)).types().count("flow_completed") == 1


async def test_a_run_that_is_being_resumed_is_not_let_go_as_the_lease_is_renewed(machines: Machines) -> None:
    run, faults = await paused_run(machines), FaultyStore(machines.worker.store)
    stored_segments: list[object] = []
    faults.after("resume_run", stored_segments.append)
    # What follows reads the state of the run, and may take as long.
    reading = faults.hold("events", when=lambda *_, **__: stored_segments, times=1)
    resuming = asyncio.create_task(machines.worker.resume(run.id, Segment(first=1)))
    await reading.reached()
    await machines.worker.engine.claims.keep_lease()
    reading.let_go()
    started = await resuming
    assert (await started.outcome()).status == "completed"
    assert (await machines.front.run_of(run.id)).claims == 0, "nobody else has claimed it"


@pytest.mark.parametrize("place", [0, 1])
async def test_a_segment_of_which_nobody_knows_whether_it_is_stored_is_walked_if_it_is(
    machines: Machines, place: int
) -> None:
    run = await paused_run(machines)
    with FaultyStore(machines.front.store) as faults:
        faults.fail("resume_run", CommitUncertain("the answer is lost"), commits=True)
        with pytest.raises(FlowExecutionError, match="INTERNAL_ERROR"):
            await machines[place].resume(run.id, Segment(first=1))
    assert (await walked(machines, run.id)).status == "completed"


@pytest.mark.parametrize("is_woken", [True, False], ids=["woken", "by the poll"])
async def test_a_cancel_cuts_off_a_run_of_another_process(machines: Machines, is_woken: bool) -> None:
    front = machines.front
    async with open_harness(front.store, beside=front, poll_s=9_999 if is_woken else 0.01) as worker:
        watch = asyncio.create_task(worker.engine.idle.watch_cancel_requests())
        run_id = (await front.start(HOLD)).id
        await worker.engine.claims.keep_lease()
        await front.follow(run_id, until=2)
        assert not front.engine.active.cancel(run_id, reason="why")
        assert not await front.engine.idle.cancel(await front.run_of(run_id), reason="why")
        if is_woken:
            assert await front.engine.idle.request_cancel(run_id, reason="why")
        else:
            await front.store.request_cancel(run_id, reason="why")
        end = (await front.read_at_end(run_id)).events[-1]
        assert isinstance(end, FlowCancelled)
        assert end.reason == "why"
        assert not await front.engine.idle.request_cancel(run_id, reason="again"), "it has ended"
        watch.cancel()


@pytest.mark.parametrize("claimed", [False, True])
async def test_a_resumed_run_is_cancelled_before_its_segment_begins(
    machines: Machines, claimed: bool
) -> None:
    run = await paused_run(machines)
    if claimed:
        await machines.front.engine.idle.request_cancel(run.id, reason="why")
    await machines.front.resume(run.id, Segment(first=1))
    if not claimed:
        resuming = await machines.front.run_of(run.id)
        assert await machines.front.engine.idle.cancel(resuming, reason="why")
    await machines.worker.engine.claims.keep_lease()
    ran = await machines.front.read_at_end(run.id)
    assert ran.types()[-1] == "flow_cancelled"
    assert {step[0] for step in ran.steps()} == {"a"}


async def test_a_run_that_another_process_has_set_aside_is_cancelled(machines: Machines) -> None:
    run_id = (await machines.front.start(WALK, {"n": 3})).id
    with FaultyStore(machines.worker.store) as faults:
        faults.fail("request", ValueError("it cannot be gone on with"))
        await machines.worker.engine.claims.keep_lease()
    assert len(machines.worker.engine.active.set_aside) == 1
    spoil(machines.front.store.connections.path, UPDATES["summary"], b"garbage", run_id)
    watch = asyncio.create_task(machines.worker.engine.idle.watch_cancel_requests())
    assert await machines.front.engine.idle.request_cancel(run_id, reason="why")
    await machines.front.follow(run_id)
    run = await machines.front.run_of(run_id)
    events = await machines.front.stored_events(run)
    assert [event_type_of(data) for data in events] == ["run_started", "run_input", "flow_cancelled"]
    assert len(machines.worker.engine.active.set_aside) == 0
    watch.cancel()


async def test_a_claimed_run_that_takes_long_to_read_holds_up_none_beside_it(machines: Machines) -> None:
    slow, other = [(await machines.front.start(WALK, {"n": 3})).id for _ in range(2)]
    number = (await machines.front.run_of(slow)).no
    with FaultyStore(machines.worker.store) as faults:
        reading = faults.hold("request", when=lambda run_no: run_no == number, times=1)
        claiming = asyncio.create_task(machines.worker.engine.claims.keep_lease())
        await machines.front.follow(other)
        assert (await machines.front.run_of(slow)).status == "pending"
        reading.let_go()
        await claiming
    await machines.front.follow(slow)


async def test_housekeeping_ends_paused_runs_that_are_to_be_cancelled_or_are_due_and_none_that_is_resumed(
    machines: Machines,
) -> None:
    front = machines.front
    cancelled, due, resumed = [await paused_run(machines) for _ in range(3)]
    # It came too late for the segment that has paused.
    assert await front.engine.idle.request_cancel(cancelled.id, reason="why")
    await front.maintenance().tidy()
    assert (await front.read(cancelled.id)).types()[-1] == "flow_cancelled"
    assert (await front.run_of(due.id)).status == "paused"
    await front.resume(resumed.id, Segment(first=1))
    with pytest.raises(FlowExecutionError, match="waits for no call"):
        await machines.other.engine.idle.paused(await front.run_of(resumed.id))
    front.clock.set_back(-48 * 3600)
    await front.maintenance().tidy()
    assert (await front.read(due.id)).types()[-1] == "flow_cancelled"
    assert (await walked(machines, resumed.id)).status == "completed"


async def test_a_short_pause_limit_is_kept_while_the_process_goes_on(house: EngineHarness) -> None:
    started = await house.start_paused(WALK, {"n": 3})
    slept = len(house.clock.slept_s)
    keeping = asyncio.create_task(house.maintenance(pause_limit_h=8 / 3600).run_forever())
    await house.follow(started.id)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    end = (await house.read(started.id)).events[-1]
    assert isinstance(end, FlowCancelled)
    assert "for 0.00222 hours" in end.reason
    assert house.clock.slept_s[slept] == 2.0


def test_segments_and_pauses_are_stored_under_the_names_that_earlier_versions_gave_them() -> None:
    flow = parse_flow(f"slug: test\nsteps:\n{WALK}")
    spec = RunSpec(flow=flow, version=0, inputs={}, capture="off", trigger_type="api")
    stored = msgspec.json.encode(SegmentSpec(spec=spec, segment=Segment(first=1)))
    assert msgspec.json.decode(stored)["stretch"]["first"] == 1
    assert msgspec.json.decode(stored, type=SegmentSpec).segment.first == 1
    tool_loop = {"step_id": "ask", "attempt": 1, "messages": [], "calls": [], "iterations_used": 1}
    turns = {**tool_loop, "offer": {"tools": []}, "duration_ms": 5}
    pause = msgspec.convert({"cursor": 0, "turns": turns, "reached": 0}, Pause)
    assert pause.tool_loop is not None
    assert pause.tool_loop.step_id == "ask"
    assert msgspec.json.decode(msgspec.json.encode(pause))["turns"]["duration_ms"] == 5
