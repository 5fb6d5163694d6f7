"""What runs hold in memory: put away and read back, after a crash too, and never waited for in a circle.

A run that has ended leaves nothing there that only the garbage collector would find: that of a server rarely
looks through everything, and what a run was given may be megabytes.
"""

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from runglass.config.settings import Settings
from runglass.engine.journal.run_spec import RunSpec, Segment
from runglass.engine.journal.run_writer import RunWriter
from runglass.engine.models.model_types import ProviderResponse
from runglass.engine.payload import Payload
from runglass.engine.run.task import RunTask
from runglass.engine.run_memory import RunMemory
from runglass.engine.steps.interpreter import Interpreter
from runglass.engine.steps.scope import mentioned_outputs
from runglass.errors import APIError, RunglassError
from runglass.flows.flow import CodeStep
from runglass.limits.limits import STEPS_AT_A_TIME, StoreTurns
from runglass.limits.memory import COUNTED_BYTES, MemoryBudget
from runglass.wire.run_api import CaptureMode
from tests.unit.engine.conftest import next_life, open_harness
from tests.unit.engine.fake_models import ANSWER, FakeModels
from tests.unit.engine.test_crashes import dying_store
from tests.waiting import until

LARGE = """
  - {id: a, type: code, code: 'return {"text": "a" * 40000}'}
  - id: each
    type: loop
    over: '[1, 2, 3]'
    steps: [{id: b, type: code, code: 'return {"text": "b" * 30000}'}]
  - {id: rest, type: wait, ms: 3600000}
  - id: last
    type: code
    code: 'return {"a": len(steps["a"]["text"]), "b": [len(b["text"]) for b in items]}'
"""
RESULT = {"a": 40_000, "b": [30_000] * 3}


@pytest.mark.parametrize("lives", [1, 3, 5, 6])
async def test_a_run_goes_on_after_a_crash_with_outputs_that_were_put_away(
    tmp_path: Path, lives: int
) -> None:
    store = dying_store(tmp_path / "db", lives, commits=True)
    async with open_harness(store, run_memory_bytes=0) as house:
        started = await house.start(LARGE)
        with contextlib.suppress(RunglassError):
            await started.outcome()
        assert house.engine.limits.memory.held == 0
    async with next_life(tmp_path / "db", run_memory_bytes=0) as later:
        await later.follow(started.id)
        run = await later.run_of(started.id)
        assert run.status == "completed"
        assert await later.store.outcome(run.no) == (b'{"a":40000,"b":[30000,30000,30000]}', None)


async def test_a_run_that_was_paused_reads_back_what_its_next_segment_mentions(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "db", run_memory_bytes=0) as house:
        started = await house.start(LARGE, segment=Segment(last=1))
        paused = await started.outcome()
        assert [len(step["text"]) for step in paused.outputs["each"]["items"]] == [30_000] * 3
        outcome = await (await house.resume(started.id, Segment(first=2))).outcome()
        assert msgspec.json.decode(outcome.result_json) == RESULT
        assert house.engine.limits.memory.held == 0


async def test_a_run_takes_the_bytes_of_its_log_and_steps_and_of_what_its_caller_is_owed(
    tmp_path: Path,
) -> None:
    async with open_harness(tmp_path / "db") as house:
        run = await house.run_of((await house.run_to_end(LARGE)).id)
        steps = await house.store.steps(run.no)
        events = await house.stored_events(run)
    assert run.log_bytes == sum(map(len, events)) + sum(len(step.data) for step in steps)
    assert run.open_bytes == len(msgspec.json.encode(RESULT))


def text_of(size: int) -> Payload:
    return Payload({"text": "x" * size})


async def test_the_oldest_is_put_away_first_and_nothing_that_is_in_use() -> None:
    async def nothing(address: tuple[str, str]) -> bytes:
        return b'{"text":"%s"}' % (b"x" * 30_000)

    memory = MemoryBudget(Settings(memory_limit_bytes=1 << 20, run_memory_bytes=70_000))
    run = RunMemory(memory, nothing)
    used, second, third, fourth = (text_of(30_000) for _ in range(4))
    run.keep(used, ("used", ""))
    async with run.using([used]):
        for name, payload in (("second", second), ("third", third), ("fourth", fourth)):
            run.keep(payload, (name, ""))
        holdings = [each.holding for each in (used, second, third, fourth)]
        assert [each and each.away for each in holdings] == [False, True, True, False]
        async with run.using([second]):
            assert second.value == used.value
        assert fourth.holding is not None
        assert fourth.holding.away
    del third, fourth, payload
    assert memory.held == used.size_bytes + second.size_bytes
    run.close()
    assert memory.held == 0


async def test_steps_that_decode_too_much_at_once_wait_for_each_other_and_one_alone_never() -> None:
    memory = MemoryBudget(Settings(memory_limit_bytes=COUNTED_BYTES * 8))
    inside, most = 0, 0

    async def work(size: int) -> None:
        nonlocal inside, most
        async with memory.working(size):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    sizes = (5 * COUNTED_BYTES, COUNTED_BYTES, 2 * COUNTED_BYTES) * 3
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work(size)) for size in sizes]
        await asyncio.sleep(0)
        tasks[3].cancel()
    assert most == 1


def test_a_request_that_memory_has_no_room_for_is_refused_beside_others_and_taken_alone() -> None:
    memory = MemoryBudget(Settings(memory_limit_bytes=1_000_000))
    with memory.starting(10_000_000), pytest.raises(APIError) as caught, memory.starting(20_000):
        pass
    assert (caught.value.code, memory.held) == ("UNAVAILABLE", 0)
    assert "memory_limit_bytes" in str(caught.value)


async def test_a_project_has_only_so_many_steps_at_the_store_and_each_has_its_turn() -> None:
    turns, most, done = StoreTurns(), 0, 0

    async def worker() -> None:
        nonlocal most, done
        for _ in range(3):
            if turns.is_full:
                await turns.turn()
            turns.inside += 1
            most = max(most, turns.inside)
            await asyncio.sleep(0)
            turns.leave()
        done += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(300):
            group.create_task(worker())
    assert done == 300
    assert most <= STEPS_AT_A_TIME


@pytest.mark.parametrize(
    ("code", "ids"),
    [
        ("return {'n': n}", set()),
        ("return {'n': steps.a['n'] + steps [ 'b-c' ]['n']}", {"a", "b-c"}),
        ("return {'n': my_steps.a, 'm': stepsize}", set()),
        ("return dict(steps)", None),
        ("return steps.get('a')", None),
        ("return steps[name]", None),
        ("return ｓteps['a']", {"a"}),  # noqa: RUF001
    ],
)
def test_outputs_are_read_back_for_steps_that_mention_them(code: str, ids: set[str] | None) -> None:
    assert mentioned_outputs(CodeStep(id="x", code=code)) == ids


@pytest.mark.parametrize("capture", ["full", "redacted", "metadata_only"])
async def test_a_step_that_waits_for_a_model_holds_no_memory_for_decoding(
    tmp_path: Path, capture: CaptureMode
) -> None:
    answer = asyncio.Future[ProviderResponse]()
    models = FakeModels(answer)
    # One such output is all that may be decoded at a time.
    async with open_harness(tmp_path / "db", models=models, memory_limit_bytes=1_000_000) as house:
        made = '- {id: a, type: code, code: \'return {"text": "a" * 200000}\'}\n'
        ask = "- {id: b, type: llm, model: 'some:model', prompt: '{{ text|length }}'}"
        asking = await house.start(made + ask, capture=capture)
        await models.asked.wait()
        other = await house.start(made + "- {id: b, type: code, code: 'return {\"n\": len(text)}'}")
        assert (await other.outcome()).result_json == b'{"n":200000}'
        answer.set_result(ANSWER)
        ran = await house.read(asking.id, await asking.outcome())
        assert ran.result == {"text": "hi"}


async def test_the_output_of_a_container_that_memory_has_no_room_for_is_read_where_it_is_needed(
    tmp_path: Path,
) -> None:
    flow = """
- id: both
  type: parallel
  branches:
    a: [{id: a, type: code, code: 'return {"text": "a" * 40000}'}]
    b: [{id: b, type: code, code: 'return {"text": "b" * 40000}'}]
"""
    last = '- {id: last, type: code, code: \'return {"n": len(a["text"] + b["text"]), "more": more}\'}'
    async with open_harness(tmp_path / "db", run_memory_bytes=0, memory_limit_bytes=60_000) as house:
        outcome = await (await house.start(flow)).outcome()
        assert (outcome.status, len(outcome.result_json or b"")) == ("completed", 80_033)
        stepped = await house.start_paused(flow + last)
        rest = await house.resume(stepped.id, Segment(first=1, input={"more": 1}))
        outcome = await rest.outcome()
    assert (outcome.status, outcome.result_json) == ("completed", b'{"n":80000,"more":1}')


async def test_a_loop_that_memory_has_no_room_for_fails_once_however_many_of_its_workers_find_that(
    tmp_path: Path,
) -> None:
    flow = """
- id: each
  type: loop
  over: list(range(100))
  max_concurrency: 20
  steps: [{id: a, type: passthrough, input: {text: '{{ initial.text }}'}}]
"""
    async with open_harness(tmp_path / "db", memory_limit_bytes=100_000) as house:
        ran = await house.run_to_end(flow, {"text": "a" * 6000}, capture="redacted")
    assert (ran.error["code"], ran.error["setting"]) == ("RUN_LIMIT", "memory_limit_bytes")
    assert [attempt.status for attempt in ran.attempts["each"]] == ["failed"]


def test_a_project_below_its_share_has_room_though_others_hold_all() -> None:
    memory = MemoryBudget(Settings(memory_limit_bytes=1000))
    memory.hold(1000, 1)
    assert not memory.has_room(1, project_id=1)
    assert memory.has_room(500, project_id=2)
    assert not memory.has_room(501, project_id=2)
    memory.hold(500, 2)
    memory.hold(333, 3)
    assert not memory.has_room(200, project_id=4), "twice the limit is the end"
    memory.hold(-1000, 1)
    assert memory.has_room(167, project_id=3)


OF_A_RUN = (RunTask, RunMemory, Payload, RunSpec, RunWriter, Interpreter)

CANCELLED = "cancelled while a model is silent"
FLOWS = {
    "code": "- {id: a, type: code, code: 'return {\"n\": len(text)}'}",
    "passed on": "- {id: a, type: passthrough}\n- {id: b, type: passthrough, input: {t: '{{ text }}'}}",
    "loop": "- id: l\n  type: loop\n  over: list(range(5))\n  max_concurrency: 2\n  steps:\n"
    "    - {id: a, type: passthrough, input: {t: '{{ initial.text }}'}}",
    "parallel": "- id: p\n  type: parallel\n  branches:\n    a: [{id: a, type: passthrough}]\n"
    "    b: [{id: b, type: passthrough}]",
    "condition": "- {id: c, type: condition, if: 'True', then: [{id: a, type: passthrough}]}",
    "echo": "- {id: a, type: llm, model: echo, prompt: '{{ text }}'}",
    "fails": "- {id: a, type: code, code: 'return 1 / 0'}",
    "fails in a loop": "- id: l\n  type: loop\n  over: list(range(5))\n  max_concurrency: 2\n  steps:\n"
    "    - {id: a, type: code, code: 'return 1 / 0'}",
    "fails and goes on": "- {id: a, type: code, code: 'return 1 / 0', on_error: continue}",
    "tried again": "- {id: a, type: code, code: 'return 1 / 0', retry: {max_attempts: 2}}",
    "no template": "- {id: a, type: passthrough, input: {t: '{{ missing.thing }}'}}",
    "no output": "- {id: a, type: llm, model: echo, prompt: a, output_schema: {type: object, not: {}}}",
    CANCELLED: "- {id: a, type: llm, model: echo, prompt: '{{ text }}'}",
    "limit of time": "- {id: a, type: wait, ms: 60000, timeout_ms: 1}",
}


@pytest.fixture(scope="module")
def heap_of_before() -> Iterator[None]:
    """Whatever other tests have left is looked through once, and not before and after each test."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def no_collector(heap_of_before: None) -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def nothing_is_left() -> bool:
    """So it is in the end: a thread lets go of what it has done when it has come round to wait."""
    return not any(isinstance(each, OF_A_RUN) for each in gc.get_objects())


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("flow", FLOWS)
async def test_a_run_that_has_ended_leaves_nothing_to_the_collector(tmp_path: Path, flow: str) -> None:
    models = FakeModels() if flow == CANCELLED else None
    async with open_harness(tmp_path / "db", models=models) as house:
        for _ in range(2):
            started = await house.start(FLOWS[flow], {"text": "x" * 100_000})
            if models is not None:
                await models.asked.wait()
                models.asked.clear()
                house.engine.active.cancel(started.id, reason="asked for")
            await started.outcome()
            await house.engine.active.join(started.id)
            del started
        await until(nothing_is_left)
