"""A process may die between any two writes: the next one goes on with its runs, and the trace stays true.

At the end what a run that fails keeps by `capture_failed`, whatever process records its failure.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runglass.engine.journal.run_spec import Segment, ToolOffer
from runglass.engine.run.task import LeaseLost, RunReleased
from runglass.errors import APIError, StoreError
from runglass.log.events import MOST_KEPT, ContentKept, FlowFailed
from runglass.log.measurements import measured
from runglass.store.sqlite.store import SqliteStore
from runglass.support.clock import iso
from runglass.wire.run_api import CaptureMode
from tests.conformance.stores import batch, make_run
from tests.fakes import LEASE_S, VirtualClock
from tests.faulty_store import FaultyStore
from tests.records import there
from tests.unit.engine.conftest import (
    EngineHarness,
    Execute,
    Ran,
    end_in_next_life,
    next_life,
    open_harness,
    take_over_in_vain,
)
from tests.unit.engine.fake_models import ANSWER, FakeModels

ASK = "- {id: ask, type: llm, model: 'any:model', prompt: Hi}"
MODES: list[CaptureMode] = ["off", "metadata_only", "redacted", "full"]


def dying_store(path: Path, lives: int, *, commits: bool = False) -> SqliteStore:
    """A store whose process dies at its append number `lives`, just before or just after the commit."""
    store = SqliteStore(path, synchronous="NORMAL")
    FaultyStore(store).die(at_append=lives, commits=commits)
    return store


@pytest.mark.parametrize("commits", [True, False])
async def test_the_double_of_a_process_that_dies_stores_nothing_afterwards(
    tmp_path: Path, commits: bool
) -> None:
    async with dying_store(tmp_path / "db", 2, commits=commits) as store:
        run = await make_run(store)
        await store.append(batch(run, 0, b"1"))
        await store.end_lease("its own")
        for head in (1, 1 + commits):
            with pytest.raises(StoreError, match="has died"):
                await store.append(batch(run, head, b"2"))
        assert len(await store.events(run.no, after=0, limit_bytes=100)) == 1 + commits
        with pytest.raises(StoreError, match="has died"):
            await store.end_lease("its own")


async def die_at(path: Path, lives: int, flow: str, inputs: dict[str, Any] | None = None, **more: Any) -> str:
    """The id of a run whose process has died just before it was to commit its append number `lives`."""
    async with open_harness(dying_store(path, lives)) as house:
        started = await house.start(flow, inputs, **more)
        with pytest.raises(StoreError):
            await started.outcome()
    return started.id


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
        started = await house.start(flow, {"word": "secret"}, capture=mode)
        with pytest.raises(StoreError):
            await started.outcome()
        assert "step_error" in (await house.read(started.id)).types()
    async with next_life(tmp_path / "db") as house:
        ran = await house.read_at_end(started.id)
        run = await house.run_of(started.id)
        _, error = await house.store.outcome(run.no)
    assert msgspec.json.decode(there(error))["message"] == "ValueError: secret (line 1)"
    assert ran.types()[-1] == "flow_failed"
    assert ("secret" in repr(ran.events) + msgspec.json.encode(ran.trace).decode()) is known


async def test_a_loop_that_has_begun_goes_on_under_a_limit_that_was_lowered_since(tmp_path: Path) -> None:
    flow = "- {id: each, type: loop, over: '[1, 2, 3]', steps: [{id: a, type: code, code: 'return {}'}]}"
    run_id = await die_at(tmp_path / "db", 3, flow)
    ran = await end_in_next_life(tmp_path / "db", run_id, run_iterations=1)
    assert ran.trace.flow_run.status == "completed"


async def test_of_the_delay_of_a_retry_the_next_process_waits_for_the_rest(tmp_path: Path) -> None:
    retry, code = "{max_attempts: 2, initial_delay_ms: 5000}", 'return {"n": 1 // (attempt - 1)}'
    run_id = await die_at(tmp_path / "db", 3, f"- {{id: a, type: code, retry: {retry}, code: '{code}'}}")
    clock = VirtualClock()
    await clock.sleep(2)
    ran = await end_in_next_life(tmp_path / "db", run_id, clock=clock)
    assert ran.trace.flow_run.status == "completed"
    assert max(clock.slept_s) == pytest.approx(3)


async def test_a_branch_that_is_not_taken_is_skipped_as_a_whole(tmp_path: Path) -> None:
    """However many leaves it has, and at whichever append the process dies that tells of them."""
    leaves = ", ".join(f"{{id: n{number}, type: passthrough}}" for number in range(500))
    flow = f"- {{id: choice, type: condition, if: 'False', then: [{leaves}]}}\n- {{id: z, type: passthrough}}"
    ran = await end_in_next_life(tmp_path / "db", await die_at(tmp_path / "db", 3, flow))
    assert ran.types().count("step_skipped") == 500


@pytest.mark.parametrize("lives", range(1, 7))
async def test_tool_results_are_taken_up_once_more_by_the_next_process(tmp_path: Path, lives: int) -> None:
    tools = [{"type": "function", "function": {"name": "one", "parameters": {}}}]
    async with next_life(tmp_path / "db") as house:
        flow = "- {id: ask, type: llm, model: echo}\n- {id: z, type: passthrough}"
        started = await house.start(flow, {"message": "hi"}, segment=Segment(offer=ToolOffer(tools=tools)))
        pause = there((await started.outcome()).pause)
        [call] = there(pause.tool_loop).calls
    results = [{"role": "tool", "toolCallId": call["id"], "content": "42"}]
    async with next_life(dying_store(tmp_path / "db", lives, commits=True)) as house:
        again = await house.resume(started.id, Segment(first=0, results=results))
        with suppress(StoreError):
            await again.outcome()
    ran = await end_in_next_life(tmp_path / "db", started.id)
    assert ran.trace.flow_run.status == "completed"
    asked = ran.attempts["ask"]
    assert [step.status for step in asked] == ["failed"] * (len(asked) - 1) + ["completed"]


@pytest.mark.parametrize("lives", range(1, 6))
async def test_a_later_segment_goes_on_with_its_own_plan_and_input(tmp_path: Path, lives: int) -> None:
    flow = """
- {id: a, type: code, code: 'return {"n": n + 1}'}
- {id: b, type: code, code: 'return {"n": n * 10}'}
- {id: c, type: passthrough}
"""
    async with next_life(tmp_path / "db") as house:
        started = await house.start_paused(flow, {"n": 1}, last=1)
    async with next_life(dying_store(tmp_path / "db", lives, commits=True)) as house:
        segment = Segment(first=0, last=1, input={"n": 5}, step_inputs={"b": {"n": 7}})
        again = await house.resume(started.id, segment)
        with suppress(StoreError):
            await again.outcome()
    async with next_life(tmp_path / "db") as house:
        await house.engine.active.join(started.id)
        paused = await house.engine.idle.paused(await house.run_of(started.id))
    assert (paused.pause.cursor, paused.outputs) == (2, {"a": {"n": 6}, "b": {"n": 70}})


@asynccontextmanager
async def another_that_has(path: Path, run_id: str) -> AsyncIterator[SqliteStore]:
    """The store as a process has it that has claimed the run once the lease on it had run out."""
    clock = VirtualClock()
    await clock.sleep(LEASE_S + 1)
    async with SqliteStore(path, synchronous="NORMAL") as other:
        [taken] = await other.claim_runs("other", now=iso(clock.now()), limit=10)
        assert taken.id == run_id
        yield other


async def test_an_engine_that_finds_its_lease_gone_stops_its_runs_at_once(
    house: EngineHarness, tmp_path: Path
) -> None:
    started = await house.start("- {id: a, type: code, code: 'while True: pass'}")
    await house.follow(started.id, until=2)
    async with another_that_has(tmp_path / "db", started.id) as other:
        await other.hold_lease("other", until="9999", renew=False)
        before = measured.lost_leases
        await house.engine.claims.keep_lease()
        assert measured.lost_leases == before + 1
        with pytest.raises(LeaseLost):
            await started.outcome()
        assert not house.engine.active.is_active(started.id)


async def test_a_run_that_an_engine_gets_again_goes_on_at_once_and_its_step_of_before_is_cut_off(
    tmp_path: Path,
) -> None:
    """Another process had it meanwhile, of which the engine has not heard."""
    cut_off = asyncio.get_running_loop().create_future()
    models, store = FakeModels(cut_off, ANSWER), SqliteStore(tmp_path / "db", synchronous="NORMAL")
    async with open_harness(store, models=models) as stopped:
        started = await stopped.start(ASK)
        await models.asked.wait()
        async with another_that_has(tmp_path / "db", started.id) as other:
            await other.end_lease("other")
        stopped.engine.claims.look()
        await asyncio.wait([cut_off])
        with pytest.raises(RunReleased):
            await started.outcome()
        ran = await stopped.read_at_end(started.id)
    assert [(step.attempt, step.status) for step in ran.attempts["ask"]] == [(1, "failed"), (2, "completed")]


async def test_a_stop_lets_steps_end_and_begins_none_and_nobody_takes_their_runs_meanwhile(
    tmp_path: Path,
) -> None:
    answer = asyncio.get_running_loop().create_future()
    models = FakeModels(answer)
    async with next_life(tmp_path / "db", models=models) as house:
        started = await house.start(f"{ASK}\n- {{id: b, type: passthrough}}")
        await models.asked.wait()
        stopping = asyncio.create_task(house.engine.stop(grace_s=30))
        for _ in range(3):
            await house.clock.sleep(LEASE_S / 2)
            await house.engine.claims.keep_lease()
        with pytest.raises(APIError, match="UNAVAILABLE"):
            await house.start("- {id: c, type: passthrough}")
        async with SqliteStore(tmp_path / "db", synchronous="NORMAL") as other:
            assert await other.claim_runs("other", now=iso(house.clock.now()), limit=10) == []
        answer.set_result(ANSWER)
        await stopping
        with pytest.raises(RunReleased):
            await started.outcome()
        left = await house.read(started.id)
    assert [(step.step_id, step.status) for step in left.trace.steps] == [("ask", "completed")]
    taken_over = measured.taken_over_runs
    ran = await end_in_next_life(tmp_path / "db", started.id)
    assert measured.taken_over_runs == taken_over + 1
    assert ran.steps() == [("ask", None, 1, "completed"), ("b", None, 1, "completed")]
    assert ran.trace.flow_run.status == "completed"


async def test_a_run_that_is_created_as_its_process_stops_begins_in_the_next_one(tmp_path: Path) -> None:
    async with next_life(tmp_path / "db") as house:
        held = FaultyStore(house.store).hold("create_run")
        starting = asyncio.create_task(house.start("- {id: a, type: passthrough}", {"n": 1}))
        await held.reached()
        await house.engine.stop()
        held.let_go()
        started = await starting
        with pytest.raises(RunReleased):
            await started.outcome()
        assert (await house.run_of(started.id)).head == 0
    ran = await end_in_next_life(tmp_path / "db", started.id)
    assert ran.steps() == [("a", None, 1, "completed")]


async def test_a_stop_while_the_end_is_being_stored_is_told_the_end(house: EngineHarness) -> None:
    held = FaultyStore(house.store).hold("append", when=lambda batch: batch.status == "completed")
    started = await house.start("- {id: a, type: passthrough}", {"n": 1})
    waiting = asyncio.ensure_future(started.outcome())
    await held.reached()
    stopping = asyncio.create_task(house.engine.stop())
    await asyncio.sleep(0)
    held.let_go()
    await stopping
    assert (await waiting).status == "completed"


async def test_an_attempt_that_a_crash_cut_off_keeps_its_input(tmp_path: Path) -> None:
    flow = "- {id: a, type: code, code: 'return {}'}"
    run_id = await die_at(tmp_path / "db", 2, flow, {"n": 1}, capture="metadata_only")
    ran = await end_in_next_life(tmp_path / "db", run_id)
    lost, _ = ran.attempts["a"]
    assert (there(lost.error_context)["code"], lost.input_context) == ("WORKER_LOST", {"n": 1})


async def survived_by_no_process(path: Path, lives: int, flow: str, **more: Any) -> Ran:
    """A run that takes its processes down outside of any step, so that the log does not grow.

    The first of them dies at its append number `lives`.
    """
    run_id = await die_at(path, lives, flow, {"n": 1}, **more)
    await take_over_in_vain(path)
    return await end_in_next_life(path, run_id)


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


FAILS_LATE = """
  - {id: first, type: code, code: 'return {"said": "mail jane@example.com", "long": "x" * 9000}'}
  - id: each
    type: loop
    over: "[1, 2, 3]"
    steps:
      - {id: double, type: code, input: {n: "{{ item }}"}, code: 'return {"twice": 2 * n}'}
  - id: way
    type: condition
    if: "True"
    then: [{id: taken, type: passthrough, input: {by: jane@example.com}}]
    else: [{id: not_taken, type: passthrough}]
  - {id: last, type: code, input: {}, code: 'raise ValueError("no")'}
"""


def kept_by(ran: Ran) -> ContentKept:
    (event,) = (event for event in ran.events if isinstance(event, ContentKept))
    return event


async def test_a_step_whose_failure_the_run_survives_has_no_output_to_keep(execute: Execute) -> None:
    steps = """
  - {id: lost, type: code, on_error: continue, code: 'raise ValueError("no")'}
  - {id: last, type: code, code: 'raise ValueError("no")'}
"""
    ran = await execute(steps, capture="metadata_only", capture_failed="full")
    assert ran.types()[-1] == "flow_failed"
    assert "content_kept" not in ran.types()


async def test_of_many_steps_the_newest_keep_their_outputs(execute: Execute) -> None:
    steps = f"""
  - id: each
    type: loop
    over: "list(range({MOST_KEPT + 20}))"
    steps: [{{id: pass, type: passthrough}}]
  - {{id: last, type: code, input: {{}}, code: 'raise ValueError("no")'}}
"""
    ran = await execute(steps, capture="metadata_only", capture_failed="full")
    # The step that failed is one of them.
    assert (len(kept_by(ran).outputs), kept_by(ran).left_out) == (MOST_KEPT - 1, 21)
    assert ran.step("pass", (20,)).output_context is None
    assert ran.step("pass", (21,)).output_context == {"item": 21, "index": 21}


@pytest.mark.parametrize("commits", [False, True])
@pytest.mark.parametrize("lives", [*range(1, 9), 99])
async def test_a_run_that_fails_keeps_the_outputs_of_its_finished_steps_whatever_process_records_that(
    tmp_path: Path, lives: int, *, commits: bool
) -> None:
    async with next_life(dying_store(tmp_path / "db", lives, commits=commits)) as house:
        started = await house.start(FAILS_LATE, {"n": 1}, capture="metadata_only", capture_failed="full")
        with suppress(StoreError):
            await started.outcome()
        left = await house.read(started.id)
    ran = await end_in_next_life(tmp_path / "db", started.id)
    assert ran.events[: len(left.events)] == left.events, "nothing acknowledged is lost"
    assert ran.types()[-3:] == ["content_kept", "run_input", "flow_failed"]
    assert ran.trace.flow_run.input == {"inputs": {"n": 1}}
    doubled = [ran.step("double", (index,)).output_context for index in range(3)]
    assert doubled == [{"twice": 2}, {"twice": 4}, {"twice": 6}]
    first, taken = ran.step("first"), ran.step("taken")
    assert there(first.output_context)["said"] == "mail jane@example.com"
    assert (first.output_size_bytes, first.input_context) == (9042, None)
    assert (first.truncated, taken.truncated) == (True, False)
    assert taken.output_context == {"by": "jane@example.com"}
    assert [(kept.step_id, kept.loop_path) for kept in kept_by(ran).outputs] == [
        ("first", None),
        ("double", (0,)),
        ("double", (1,)),
        ("double", (2,)),
        ("taken", None),
    ]
    assert kept_by(ran).left_out == 0


async def test_a_run_that_no_process_survives_keeps_its_outputs(tmp_path: Path) -> None:
    flow = "- {id: one, type: passthrough}\n- {id: two, type: wait, ms: 1000}"
    ran = await survived_by_no_process(
        tmp_path / "db", 3, flow, capture="metadata_only", capture_failed="full"
    )
    assert ran.types()[-3:] == ["content_kept", "run_input", "flow_failed"]
    assert ran.step("one").output_context == {"n": 1}


@pytest.mark.parametrize("data", [b"\xff\x00", b"{", b"[1", b"\x00" * 100_000])
async def test_where_an_output_cannot_be_read_the_run_fails_by_its_own_error(
    house: EngineHarness, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    FaultyStore(house.store).answer("checkpoint", data)
    ran = await house.run_to_end(FAILS_LATE, capture="metadata_only", capture_failed="full")
    assert (ran.outcome.status, ran.outcome.step_id) == ("failed", "last")
    assert ran.error["code"] == "CODE_ERROR"
    assert "content_kept" not in ran.types()
    assert f"run {ran.id} keeps no outputs of its steps" in caplog.text
