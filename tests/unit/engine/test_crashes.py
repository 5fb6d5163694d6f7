"""A process may die between any two writes: the next one goes on with its runs, and the trace stays true."""

import asyncio
import contextlib
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.engine.journal.run_spec import Segment, ToolOffer
from runglass.engine.payload import Payload
from runglass.engine.run.task import LeaseLost, RunReleased
from runglass.errors import APIError, StoreError
from runglass.flows.flow import CodeStep, Flow, leaves
from runglass.flows.parser import parse_flow
from runglass.log.events import FlowCompleted, FlowFailed, decode_event, is_terminal
from runglass.log.measurements import measured
from runglass.store.sqlite.store import SqliteStore
from runglass.support.clock import iso
from runglass.tails.run_log import Tails
from runglass.wire.run_api import CaptureMode
from tests.examples import examples
from tests.fakes import CRASH_RETRIES, LEASE_S, VirtualClock
from tests.faulty_store import FaultyStore
from tests.flows import SUCCEEDS_LATER, flow_trees
from tests.unit.engine.conftest import (
    EngineHarness,
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
)
from tests.unit.test_reference_fold import check_agreement_on

MODES: list[CaptureMode] = ["off", "metadata_only", "redacted", "full"]


def dying_store(path: Path, lives: int, *, commits: bool = False) -> tuple[SqliteStore, FaultyStore]:
    """A store whose process dies at its append number `lives`, just before or just after the commit."""
    store = SqliteStore(path, synchronous="NORMAL")
    faults = FaultyStore(store)
    faults.die(at_append=lives, commits=commits)
    return store, faults


async def events_of(house: EngineHarness, run_id: str) -> list[bytes]:
    run = await run_of(house, run_id)
    return [data for _, data in await house.store.events(run.no, after=0, limit_bytes=1 << 30)]


async def live_through(
    flow: Flow, mode: CaptureMode, deaths: list[tuple[int, bool]], path: Path
) -> tuple[Ran, list[list[bytes]]]:
    """Runs the flow in as many processes as it takes; the log as each of them left it comes back too."""
    logs: list[list[bytes]] = []
    run_id = ""
    for lives, commits in deaths:
        store, faults = dying_store(path, lives, commits=commits)
        async with next_life(store) as house, asyncio.timeout(30):
            if not run_id:
                run_id = (await start(house, flow, {"n": 1}, capture=mode, capture_failed="full")).id
            run = await house.store.run(run_id)
            while run is not None and not run.ended and not faults.has_died:
                await asyncio.sleep(0)
                run = await house.store.run(run_id)
            logs.append(await events_of(house, run_id))
    async with next_life(SqliteStore(path, synchronous="NORMAL")) as house:
        run_id = run_id or (await start(house, flow, {"n": 1}, capture=mode, capture_failed="full")).id
        await follow(house, run_id)
        return await read(house, run_id), logs


def check(ran: Ran, logs: list[list[bytes]], flow: Flow) -> None:
    """What holds for every log beside the laws of all logs, however often its process died."""
    for log in logs:
        assert ran.events[: len(log)] == [decode_event(data) for data in log], "nothing acknowledged is lost"
    assert is_terminal(ran.events[-1])
    check_agreement_on(ran.events)
    assert {step.step_id for step in ran.trace.steps} <= {leaf.id for leaf in leaves(flow.steps)}


def tells_attempts(flow: Flow) -> bool:
    """Whether outputs depend on the number of the attempt, and so on the crashes."""
    return any(
        leaf.input is not None or (isinstance(leaf, CodeStep) and leaf.code == SUCCEEDS_LATER)
        for leaf in leaves(flow.steps)
    )


def the_end(ran: Ran) -> tuple[Any, ...]:
    last = ran.events[-1]
    return (
        last.event_type,
        getattr(last, "result", None),
        getattr(last, "step_id", None),
        (getattr(last, "error", None) or {}).get("code"),
    )


@examples(20, of=120)
@given(
    flow=flow_trees(),
    mode=st.sampled_from(MODES),
    deaths=st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=3),
)
def test_a_run_goes_on_whenever_its_process_dies(
    flow: Flow, mode: CaptureMode, deaths: list[tuple[int, bool]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ran, logs = asyncio.run(live_through(flow, mode, deaths, Path(folder) / "db"))
        check(ran, logs, flow)
        if not tells_attempts(flow):
            whole, _ = asyncio.run(live_through(flow, mode, [], Path(folder) / "whole"))
            assert the_end(ran) == the_end(whole)


LOOPED = """
- id: each
  type: loop
  over: '[1, 2, 3]'
  max_concurrency: 2
  steps:
    - {id: twice, type: code, code: 'return {"n": item * 2}'}
    - id: odd
      type: condition
      if: index % 2 == 1
      then: [{id: more, type: code, code: 'return {"n": n + 1}'}]
      else: [{id: less, type: code, code: 'return {"n": n - 1}'}]
- id: both
  type: parallel
  branches:
    a: [{id: left, type: passthrough}]
    b: [{id: right, type: code, code: 'return {"sum": sum(i["n"] for i in items)}'}]
"""
RESULT = {"a": {"items": [{"n": 1}, {"n": 5}, {"n": 5}]}, "b": {"sum": 11}}


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("lives", range(1, 22))
async def test_loops_and_branches_go_on_each_for_itself(tmp_path: Path, lives: int, *, commits: bool) -> None:
    flow = parse_flow(f"slug: test\nsteps:\n{LOOPED}")
    ran, logs = await live_through(flow, "metadata_only", [(lives, commits)], tmp_path / "db")
    check(ran, logs, flow)
    run_ended = ran.events[-1]
    assert isinstance(run_ended, FlowCompleted)
    async with SqliteStore(tmp_path / "db", synchronous="NORMAL") as store:
        run = await store.run(ran.id)
        assert run is not None
        result, _ = await store.outcome(run.no)
    assert msgspec.json.decode(result or b"") == RESULT
    assert ran.trace.flow_run.status == "completed"
    assert run_ended.summary is not None
    attempts = [step for steps in ran.attempts.values() for step in steps]
    for status in ("completed", "skipped"):
        assert run_ended.summary[status] == sum(step.status == status for step in attempts)
    lost = [step for step in attempts if step.status == "failed"]
    assert run_ended.summary["retried"] == len(lost)
    assert {(step.error_context or {}).get("code") for step in lost} <= {"WORKER_LOST"}
    assert all(step.input_context is not None for step in lost), "a failed attempt keeps its input"


async def die_in(path: Path, run_id: str, *, until: int, flow: str = "", inputs: Any = None) -> str:
    """A process that dies when the log has so many events; the run is started there if it has no id yet."""
    async with next_life(SqliteStore(path, synchronous="NORMAL")) as house:
        if not run_id:
            run_id = (await start(house, flow, inputs, capture="metadata_only")).id
        await follow(house, run_id, until=until)
    return run_id


async def test_a_step_that_takes_its_process_down_is_tried_a_limited_number_of_times(tmp_path: Path) -> None:
    flow = "- {id: a, type: passthrough}\n- {id: hog, type: code, code: 'while True: pass'}"
    run_id = await die_in(tmp_path / "db", "", until=4, flow=flow)
    for crash in range(1, 4):
        # Each life adds the lost attempt's input, its end, and the start of the next one.
        await die_in(tmp_path / "db", run_id, until=4 + 3 * crash)
    ran = await end_in_next_life(tmp_path / "db", run_id)
    assert [step.attempt for step in ran.attempts["hog"]] == [1, 2, 3, 4]
    assert {(step.error_context or {})["code"] for step in ran.attempts["hog"]} == {"WORKER_LOST"}
    assert len(ran.attempts["a"]) == 1
    assert ran.types()[-3:] == ["step_error", "run_input", "flow_failed"]


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


async def test_crashes_are_counted_apart_from_retries(tmp_path: Path) -> None:
    flow = """
- id: a
  type: code
  retry: {max_attempts: 2, initial_delay_ms: 60000, max_delay_ms: 60000}
  code: |
    if attempt > 1:
      raise ValueError("no")
    while True: pass
"""
    run_id = await die_in(tmp_path / "db", "", until=2, flow=flow)
    async with next_life(SqliteStore(tmp_path / "db", synchronous="NORMAL")) as house:
        ran = await read_at_end(house, run_id)
        assert house.clock.slept_s.count(60.0) == 1
    codes = [(step.error_context or {})["code"] for step in ran.attempts["a"]]
    assert codes == ["WORKER_LOST", "CODE_ERROR", "CODE_ERROR"]


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
        run = await run_of(house, started.id)
        if run.status == "running":
            async with aclosing(
                Tails(house.store, house.bus, poll_s=0.01).follow(run, after=run.head, until={"step_paused"})
            ) as pages:
                async for _ in pages:
                    pass
        run = await run_of(house, started.id)
        paused = await house.engine.idle.paused(run)
        assert (paused.pause.cursor, paused.outputs) == (2, {"a": {"n": 6}, "b": {"n": 70}})
        ran = await read(house, started.id)
    assert not [step for step in ran.trace.steps if step.status == "running"]
    for step_id in ("a", "b"):
        assert [step.attempt for step in ran.attempts[step_id]] == list(
            range(1, len(ran.attempts[step_id]) + 1)
        )
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
    ended = ran.events[-1]
    assert isinstance(ended, FlowCompleted)
    assert ended.summary is not None
    assert ended.summary["tokens"]["total"] == sum(step.tokens.total for step in asked if step.tokens)


async def test_an_engine_without_its_lease_can_write_nothing(tmp_path: Path) -> None:
    """The first process is stopped so long that its lease runs out; the second one takes its run over."""
    flow = "- {id: a, type: code, code: 'return {}'}\n- {id: b, type: passthrough}"
    store = SqliteStore(tmp_path / "db", synchronous="NORMAL")
    held = FaultyStore(store).hold("append", when=lambda batch: b'"step_completed"' in b"".join(batch.events))
    async with open_harness(store) as stopped:
        started = await start(stopped, flow)
        await held.reached()
        clock = VirtualClock()
        await clock.sleep(LEASE_S + 1)
        taken_over = measured.taken_over_runs
        async with open_harness(SqliteStore(tmp_path / "db", synchronous="NORMAL"), clock=clock) as other:
            await follow(other, started.id)
            assert measured.taken_over_runs == taken_over + 1
            before = await read(other, started.id)
        held.let_go()
        with pytest.raises(LeaseLost):
            await started.outcome()
        await stopped.engine.claims.keep_lease()
        after = await read(stopped, started.id)
    assert before.events == after.events
    assert after.trace.flow_run.status == "completed"
    assert [(step.attempt, step.status) for step in after.attempts["a"]] == [(1, "failed"), (2, "completed")]


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


async def test_while_a_stop_lets_steps_end_nobody_takes_their_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, held = asyncio.Event(), asyncio.Event()

    async def performing(step: Any, data: Payload, *rest: Any) -> Any:
        reached.set()
        await held.wait()
        return data.value

    monkeypatch.setattr("runglass.engine.steps.attempt_runner.perform", performing)
    async with next_life(SqliteStore(tmp_path / "db", synchronous="NORMAL")) as house:
        started = await start(house, "- {id: a, type: passthrough}", {"n": 1})
        await reached.wait()
        stopping = asyncio.create_task(house.engine.stop(grace_s=30))
        for _ in range(3):
            await house.clock.sleep(LEASE_S / 2)
            await house.engine.claims.keep_lease()
        async with SqliteStore(tmp_path / "db", synchronous="NORMAL") as other:
            assert await other.claim_runs("other", now=iso(house.clock.now()), limit=10) == []
        held.set()
        await stopping
        await house.engine.claims.keep_lease()
        assert (await started.outcome()).status == "completed"


async def test_a_stop_lets_steps_end_and_begins_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        await asyncio.sleep(0)
        with pytest.raises(APIError, match="UNAVAILABLE"):
            await start(house, "- {id: c, type: passthrough}")
        held.set()
        await stopping
        with pytest.raises(RunReleased):
            await started.outcome()
        left = await read(house, started.id)
    assert [(step.step_id, step.status) for step in left.trace.steps] == [("a", "completed")]
    ran = await end_in_next_life(tmp_path / "db", started.id)
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


@pytest.mark.parametrize("mode", MODES)
async def test_a_run_that_no_process_survives_is_ended_after_so_many(
    tmp_path: Path, mode: CaptureMode
) -> None:
    """It takes its process down outside of any step, so that the log does not grow."""
    async with SqliteStore(tmp_path / "db", synchronous="NORMAL") as store:
        async with open_harness(dying_store(tmp_path / "db", 1)[0]) as house:
            started = await start(house, "- {id: a, type: passthrough}", {"n": 1}, capture=mode)
            with pytest.raises(StoreError):
                await started.outcome()
        for life in range(CRASH_RETRIES + 1):
            await store.end_lease(None)
            await store.claim_runs(f"life {life}", now="2026", limit=1)
        await store.end_lease(None)
    ran = await end_in_next_life(tmp_path / "db", started.id)
    assert isinstance(last := ran.events[-1], FlowFailed)
    if mode == "off":
        assert ran.types() == ["run_started", "flow_failed"]
        assert last.error == {"code": "WORKER_LOST"}, "mode off keeps no message, be it ours"
    else:
        assert ran.types() == ["run_started", "run_input", "flow_failed"]
        assert ran.trace.flow_run.input == {"inputs": {"n": 1}}
