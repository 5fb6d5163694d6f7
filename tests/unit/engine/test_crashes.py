"""A process may die between any two writes: the next one goes on with its runs, and the trace stays true."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runglass.engine.journal.run_spec import Segment, ToolOffer
from runglass.engine.payload import Payload
from runglass.engine.run.task import LeaseLost, RunReleased
from runglass.errors import APIError, StoreError
from runglass.log.events import FlowFailed
from runglass.log.measurements import measured
from runglass.store.sqlite.store import SqliteStore
from runglass.support.clock import iso
from runglass.wire.run_api import CaptureMode
from tests.fakes import LEASE_S, VirtualClock
from tests.faulty_store import FaultyStore
from tests.unit.engine.conftest import (
    Ran,
    end_in_next_life,
    follow,
    next_life,
    open_harness,
    read,
    read_at_end,
    resume,
    run_of,
    start,
    take_over_in_vain,
)

MODES: list[CaptureMode] = ["off", "metadata_only", "redacted", "full"]


def dying_store(path: Path, lives: int, *, commits: bool = False) -> tuple[SqliteStore, FaultyStore]:
    """A store whose process dies at its append number `lives`, just before or just after the commit."""
    store = SqliteStore(path, synchronous="NORMAL")
    faults = FaultyStore(store)
    faults.die(at_append=lives, commits=commits)
    return store, faults


@pytest.mark.parametrize(("mode", "known"), [("off", False), ("full", True)])
async def test_a_caller_is_owed_the_whole_error_of_a_step_that_was_lost_before_a_crash(
    tmp_path: Path, mode: CaptureMode, *, known: bool
) -> None:
    """The process dies after the end of the step and before that of the run, as a branch is cut off."""
    flow = """
- id: both
  type: parallel
  branches:
    a: [{id: a, type: code, code: 'raise ValueError(initial["word"])'}]
    b: [{id: b, type: code, code: 'while True: pass'}]
"""
    store = SqliteStore(tmp_path / "db", synchronous="NORMAL")
    died = StoreError("the process has died")
    FaultyStore(store).fail("append", died, when=lambda batch: batch.status == "failed")
    async with next_life(store) as house:
        started = await start(house, flow, {"word": "secret"}, capture=mode)
        with pytest.raises(StoreError):
            await started.outcome()
        assert "step_error" in (await read(house, started.id)).types()
    async with next_life(SqliteStore(tmp_path / "db", synchronous="NORMAL")) as house:
        ran = await read_at_end(house, started.id)
        run = await run_of(house, started.id)
        _, error = await house.store.outcome(run.no)
    assert error is not None
    assert msgspec.json.decode(error)["message"] == "ValueError: secret (line 1)"
    assert ran.types()[-1] == "flow_failed"
    assert ("secret" in repr(ran.events) + msgspec.json.encode(ran.trace).decode()) is known


async def test_a_loop_that_has_begun_goes_on_under_a_limit_that_was_lowered_since(tmp_path: Path) -> None:
    flow = "- {id: each, type: loop, over: '[1, 2, 3]', steps: [{id: a, type: code, code: 'return {}'}]}"
    async with open_harness(dying_store(tmp_path / "db", 3)[0]) as house:
        started = await start(house, flow)
        with pytest.raises(StoreError):
            await started.outcome()
    async with next_life(SqliteStore(tmp_path / "db", synchronous="NORMAL"), run_iterations=1) as house:
        ran = await read_at_end(house, started.id)
    assert ran.trace.flow_run.status == "completed"


async def test_a_retry_that_was_due_when_the_process_died_follows(tmp_path: Path) -> None:
    flow = """
- id: a
  type: code
  retry: {max_attempts: 2, initial_delay_ms: 5000}
  code: |
    if attempt == 1: raise ValueError("no")
    return {"n": attempt}
"""
    store, _ = dying_store(tmp_path / "db", 3)
    async with next_life(store) as house:
        started = await start(house, flow)
        with pytest.raises(StoreError):
            await started.outcome()
    async with next_life(SqliteStore(tmp_path / "db", synchronous="NORMAL")) as house:
        ran = await read_at_end(house, started.id)
        assert 4.9 < max(house.clock.slept_s) <= 5.0, "the delay counts from the failure"
    assert ran.trace.flow_run.status == "completed"
    assert [(step.attempt, step.status) for step in ran.attempts["a"]] == [(1, "failed"), (2, "completed")]


async def test_a_wait_keeps_its_deadline_and_is_never_given_up(tmp_path: Path) -> None:
    """The clock of each life starts ten seconds after the one before."""
    flow = "- {id: w, type: wait, ms: 60000}"
    held = asyncio.Event()

    class Waiting(VirtualClock):
        def __init__(self, elapsed_s: float) -> None:
            super().__init__()
            self._elapsed_s = elapsed_s
            self.slept = asyncio.Event()

        async def sleep(self, seconds: float) -> None:
            self.slept_s.append(seconds)
            self.slept.set()
            await held.wait()

    run_id, ran = "", None
    for life in range(6):
        clock = Waiting(10.0 * life)
        async with SqliteStore(tmp_path / "db", synchronous="NORMAL") as first:
            await first.end_lease(None)
        async with open_harness(SqliteStore(tmp_path / "db", synchronous="NORMAL"), clock=clock) as house:
            if not run_id:
                run_id = (await start(house, flow, capture="off")).id
            await clock.slept.wait()
            assert clock.slept_s == [60.0 - 10.0 * life]
            if life == 5:
                held.set()
                await follow(house, run_id)
            ran = await read(house, run_id)
    assert ran is not None
    assert ran.trace.flow_run.status == "completed"
    assert [step.status for step in ran.attempts["w"]] == ["failed"] * 5 + ["completed"]


@pytest.mark.parametrize("lives", range(1, 8))
async def test_a_later_segment_goes_on_with_its_own_plan_and_cursor(tmp_path: Path, lives: int) -> None:
    """The second segment runs the first step again, with an edited input, and stops after it."""
    flow = """
- {id: a, type: code, code: 'return {"n": n + 1}'}
- {id: b, type: code, code: 'return {"n": n * 10}'}
- {id: c, type: passthrough}
"""
    async with next_life(SqliteStore(tmp_path / "db", synchronous="NORMAL")) as house:
        started = await start(house, flow, {"n": 1}, segment=Segment(last=0))
        await started.outcome()
        await (await resume(house, started.id, Segment(first=1, last=1))).outcome()
    store, _ = dying_store(tmp_path / "db", lives, commits=True)
    async with next_life(store) as house:
        segment = Segment(first=0, last=1, input={"n": 5}, step_inputs={"b": {"n": 7}})
        third = await resume(house, started.id, segment)
        with contextlib.suppress(StoreError):
            await third.outcome()
    async with next_life(SqliteStore(tmp_path / "db", synchronous="NORMAL")) as house:
        await house.engine.active.join(started.id)
        paused = await house.engine.idle.paused(await run_of(house, started.id))
        assert (paused.pause.cursor, paused.outputs) == (2, {"a": {"n": 6}, "b": {"n": 70}})
        ran = await read(house, started.id)
    for step_id in ("a", "b"):
        assert [step.status for step in ran.attempts[step_id]].count("completed") == 2


@pytest.mark.parametrize("lives", range(1, 7))
async def test_tool_results_are_taken_up_once_more_by_the_next_process(tmp_path: Path, lives: int) -> None:
    tools = [{"type": "function", "function": {"name": "one", "parameters": {}}}]
    async with next_life(SqliteStore(tmp_path / "db", synchronous="NORMAL")) as house:
        flow = "- {id: ask, type: llm, model: echo}\n- {id: z, type: passthrough}"
        started = await start(house, flow, {"message": "hi"}, segment=Segment(offer=ToolOffer(tools=tools)))
        outcome = await started.outcome()
        assert outcome.pause is not None
        assert outcome.pause.tool_loop is not None
        [call] = outcome.pause.tool_loop.calls
    results = [{"role": "tool", "toolCallId": call["id"], "content": "42"}]
    store, _ = dying_store(tmp_path / "db", lives, commits=True)
    async with next_life(store) as house:
        again = await resume(house, started.id, Segment(first=0, results=results))
        with contextlib.suppress(StoreError):
            await again.outcome()
    ran = await end_in_next_life(tmp_path / "db", started.id)
    assert ran.trace.flow_run.status == "completed"
    asked = ran.attempts["ask"]
    assert [step.status for step in asked] == ["failed"] * (len(asked) - 1) + ["completed"]


async def test_an_engine_that_finds_its_lease_gone_stops_its_runs_at_once(tmp_path: Path) -> None:
    async with open_harness(SqliteStore(tmp_path / "db", synchronous="NORMAL")) as stopped:
        started = await start(stopped, "- {id: a, type: code, code: 'while True: pass'}")
        await follow(stopped, started.id, until=2)
        clock = VirtualClock()
        await clock.sleep(LEASE_S + 1)
        async with SqliteStore(tmp_path / "db", synchronous="NORMAL") as other:
            [taken] = await other.claim_runs("other", now=iso(clock.now()), limit=10)
            assert taken.id == started.id
            await other.hold_lease("other", until="9999", renew=False)
            before = measured.lost_leases
            await stopped.engine.claims.keep_lease()
            assert measured.lost_leases == before + 1
            with pytest.raises(LeaseLost):
                await started.outcome()
            assert not stopped.engine.active.is_active(started.id)


async def test_a_run_that_an_engine_gets_again_goes_on_at_once_and_its_step_of_before_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process had it meanwhile, of which the engine has not heard."""
    begun, cut_off = asyncio.Event(), asyncio.Event()

    async def performing(step: Any, data: Payload, *rest: Any) -> Any:
        if not begun.is_set():
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                cut_off.set()
        return data.value

    monkeypatch.setattr("runglass.engine.steps.attempt_runner.perform", performing)
    async with open_harness(SqliteStore(tmp_path / "db", synchronous="NORMAL")) as stopped:
        started = await start(stopped, "- {id: a, type: passthrough}", {"n": 1})
        await begun.wait()
        clock = VirtualClock()
        await clock.sleep(LEASE_S + 1)
        async with SqliteStore(tmp_path / "db", synchronous="NORMAL") as other:
            [taken] = await other.claim_runs("other", now=iso(clock.now()), limit=10)
            assert taken.id == started.id
            await other.end_lease("other")
        stopped.engine.claims.look()
        await cut_off.wait()
        with pytest.raises(RunReleased):
            await started.outcome()
        ran = await read_at_end(stopped, started.id)
    assert [(step.attempt, step.status) for step in ran.attempts["a"]] == [(1, "failed"), (2, "completed")]


async def test_a_stop_lets_steps_end_and_begins_none_and_nobody_takes_their_runs_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, held = asyncio.Event(), asyncio.Event()

    async def performing(step: Any, data: Payload, *rest: Any) -> Any:
        if step.id == "a":
            reached.set()
            await held.wait()
        return data.value

    monkeypatch.setattr("runglass.engine.steps.attempt_runner.perform", performing)
    async with next_life(SqliteStore(tmp_path / "db", synchronous="NORMAL")) as house:
        started = await start(house, "- {id: a, type: passthrough}\n- {id: b, type: passthrough}", {"n": 1})
        await reached.wait()
        stopping = asyncio.create_task(house.engine.stop(grace_s=30))
        for _ in range(3):
            await house.clock.sleep(LEASE_S / 2)
            await house.engine.claims.keep_lease()
        with pytest.raises(APIError, match="UNAVAILABLE"):
            await start(house, "- {id: c, type: passthrough}")
        async with SqliteStore(tmp_path / "db", synchronous="NORMAL") as other:
            assert await other.claim_runs("other", now=iso(house.clock.now()), limit=10) == []
        held.set()
        await stopping
        with pytest.raises(RunReleased):
            await started.outcome()
        left = await read(house, started.id)
    assert [(step.step_id, step.status) for step in left.trace.steps] == [("a", "completed")]
    taken_over = measured.taken_over_runs
    ran = await end_in_next_life(tmp_path / "db", started.id)
    assert measured.taken_over_runs == taken_over + 1
    assert ran.steps() == [("a", None, 1, "completed"), ("b", None, 1, "completed")]
    assert ran.trace.flow_run.status == "completed"


async def test_a_stop_while_the_end_is_being_stored_is_told_the_end(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "db", synchronous="NORMAL")
    held = FaultyStore(store).hold("append", when=lambda batch: batch.status == "completed")
    async with next_life(store) as house:
        started = await start(house, "- {id: a, type: passthrough}", {"n": 1})
        waiting = asyncio.ensure_future(started.outcome())
        await held.reached()
        stopping = asyncio.create_task(house.engine.stop())
        await asyncio.sleep(0)
        held.let_go()
        await stopping
        assert (await waiting).status == "completed"


async def test_an_attempt_that_a_crash_cut_off_keeps_its_input(tmp_path: Path) -> None:
    async with open_harness(dying_store(tmp_path / "db", 2)[0]) as house:
        flow = "- {id: a, type: code, code: 'return {}'}"
        started = await start(house, flow, {"n": 1}, capture="metadata_only")
        with pytest.raises(StoreError):
            await started.outcome()
    ran = await end_in_next_life(tmp_path / "db", started.id)
    lost, _ = ran.attempts["a"]
    assert ((lost.error_context or {})["code"], lost.input_context) == ("WORKER_LOST", {"n": 1})


async def survived_by_no_process(path: Path, lives: int, flow: str, **more: Any) -> Ran:
    """A run that takes its processes down outside of any step, so that the log does not grow.

    The first of them dies at its append number `lives`.
    """
    async with open_harness(dying_store(path, lives)[0]) as house:
        started = await start(house, flow, {"n": 1}, **more)
        with pytest.raises(StoreError):
            await started.outcome()
    await take_over_in_vain(path)
    return await end_in_next_life(path, started.id)


@pytest.mark.parametrize("mode", MODES)
async def test_a_run_that_no_process_survives_is_ended_after_so_many(
    tmp_path: Path, mode: CaptureMode
) -> None:
    ran = await survived_by_no_process(tmp_path / "db", 1, "- {id: a, type: passthrough}", capture=mode)
    assert isinstance(last := ran.events[-1], FlowFailed)
    if mode == "off":
        assert ran.types() == ["run_started", "flow_failed"]
        assert last.error == {"code": "WORKER_LOST"}, "mode off keeps no message, be it ours"
    else:
        assert ran.types() == ["run_started", "run_input", "flow_failed"]
        assert ran.trace.flow_run.input == {"inputs": {"n": 1}}
