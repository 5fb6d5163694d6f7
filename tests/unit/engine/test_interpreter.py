"""What the engine does with each kind of step, alone and side by side, and that the log says so."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runglass.config.settings import Settings
from runglass.engine.capture.capture import Capture
from runglass.engine.models.gateway import ModelCallFailed, ModelRequest
from runglass.engine.payload import Payload
from runglass.engine.steps.attempt_runner import perform
from runglass.engine.steps.concurrency import MOST_WORKERS, LoopWorkers
from runglass.engine.steps.run_limits import RunUsage
from runglass.errors import StoreError
from runglass.log.events import StepProgress
from runglass.wire.run_api import CaptureMode
from tests.faulty_store import FaultyStore
from tests.records import there
from tests.unit.engine.conftest import EngineHarness, Execute, open_harness
from tests.unit.engine.fake_models import FakeModels, never

LEVELS, WIDE = 3, 40


async def test_loops_in_loops_begin_no_more_iterations_than_a_run_may_have(tmp_path: Path) -> None:
    steps = "{id: ask, type: llm, model: echo, prompt: a}"
    for level in range(LEVELS):
        steps = (
            f"{{id: l{level}, type: loop, over: list(range({WIDE})), max_concurrency: {WIDE},"
            f" steps: [{steps}]}}"
        )
    models = FakeModels()
    async with open_harness(tmp_path / "db", models=models) as house, asyncio.timeout(60):
        started = await house.start(f"- {steps}")
        # Each worker, and the first one of all, is at one innermost iteration, or on its way to one.
        while models.calls <= MOST_WORKERS:
            models.asked.clear()
            await models.asked.wait()
        # While another run goes through all of it, one that was about to begin would have begun.
        await (await house.start("- {id: a, type: passthrough}")).outcome()
        assert models.calls == MOST_WORKERS + 1
        assert house.engine.active.cancel(started.id, reason="asked for")
        await started.outcome()


async def test_a_loop_that_began_alone_gets_more_workers_when_others_have_ended() -> None:
    usage = RunUsage(Settings())
    usage.workers = MOST_WORKERS
    loop = LoopWorkers(3, usage)
    going: list[int] = []
    items = iter(range(20))

    async def work() -> None:
        for item in items:
            loop.add()
            going.append(item)
            await asyncio.sleep(0)
            seen.append(len(going))
            going.remove(item)
            if item == 2:
                usage.workers = 0

    seen: list[int] = []
    await loop.run(work)
    assert seen[:3] == [1, 1, 1]
    assert max(seen) == 3
    assert len(seen) == 20
    await asyncio.sleep(0)
    assert usage.workers == 0


async def test_a_loop_that_has_failed_asks_no_model_any_more(tmp_path: Path) -> None:
    """Inside of it another one is being cut off at that moment, and would go on by its `on_error`."""
    flow = """
- id: outer
  type: loop
  over: list(range(2))
  max_concurrency: 2
  steps:
    - id: which
      type: condition
      if: item == 0
      then: [{id: boom, type: llm, model: echo, prompt: boom}]
      else:
        - id: inner
          type: loop
          on_error: continue
          over: list(range(2))
          as: inside
          max_concurrency: 2
          steps:
            - id: either
              type: condition
              if: inside == 0
              then: [{id: hang, type: llm, model: echo, prompt: hang}]
              else: [{id: bad, type: llm, model: echo, prompt: bad}]
        - {id: after, type: llm, model: echo, prompt: after}
"""
    prompts, hanging, ending = list[str](), asyncio.Event(), asyncio.Event()
    iteration = asyncio.Future[asyncio.Task[Any] | None]()

    async def fail(request: ModelRequest) -> None:
        """Of `hang` after `bad` beside it has failed and the iteration of `boom` has ended since."""
        prompts.append(prompt := request.messages[-1]["content"])
        match prompt:
            case "hang":
                hanging.set()
                try:
                    await never()
                finally:
                    ending.set()
                    await asyncio.wait([there(await iteration)])
            case "bad":
                await hanging.wait()
            case "boom":
                iteration.set_result(asyncio.current_task())
                await ending.wait()
        raise ModelCallFailed("BOOM", "it was to fail", may_be_charged=False, may_retry=False)

    models = FakeModels()
    FaultyStore(models).before("answer", fail)
    async with open_harness(tmp_path / "db", models=models) as house, asyncio.timeout(60):
        ran = await house.run_to_end(flow)
    assert (ran.outcome.status, ran.outcome.step_id) == ("failed", "boom")
    assert sorted(prompts) == ["bad", "boom", "hang"]


def for_each_list(step: str) -> str:
    return f"- {{id: outer, type: loop, over: lists, steps: [{step}]}}"


async def test_events_go_to_the_store_while_more_of_them_come(house: EngineHarness) -> None:
    appends = FaultyStore(house.store).calls("append")
    empty_loop = "{id: inner, type: loop, over: item, steps: [{id: never, type: passthrough}]}"
    started = await house.start(for_each_list(empty_loop), {"lists": [[]] * 3_000})
    assert (await started.outcome()).status == "completed"
    sizes = [len(call.args[0].events) for call in appends]
    assert sum(sizes) >= 3_000
    assert max(sizes) < 1_000
    assert len(sizes) < 1_000, "those of one turn travel together"


async def test_a_log_of_skipped_steps_has_an_end(tmp_path: Path) -> None:
    leaves = ", ".join(f"{{id: n{number}, type: passthrough}}" for number in range(300))
    skipped = f"{{id: choice, type: condition, if: 'False', then: [{leaves}]}}"
    async with open_harness(tmp_path / "db", run_log_bytes=100_000) as house:
        ran = await house.run_to_end(for_each_list(skipped), {"lists": [[]] * 10})
        assert ran.outcome.status == "failed"
        assert ran.error["limit"] == "log"
        run = await house.run_of(ran.id)
        assert 100_000 < run.log_bytes < 300_000


async def test_no_more_iterations_run_at_once_than_allowed(execute: Execute) -> None:
    ran = await execute(
        "- {id: l, type: loop, over: xs, max_concurrency: 3, steps: [{id: w, type: wait, ms: 5}]}",
        {"xs": list(range(20))},
    )
    running = most = 0
    for event in ran.events:
        running += {"step_started": 1, "step_completed": -1}.get(event.event_type, 0)
        most = max(most, running)
    assert most == 3
    assert ran.result == {"items": [{"item": index, "index": index} for index in range(20)]}


async def test_a_step_sees_the_items_of_all_loops_around_it(execute: Execute) -> None:
    step = "{id: a, type: code, code: 'return {\"seen\": [row, cell, index]}'}"
    inner = f"{{id: cells, type: loop, over: row, as: cell, steps: [{step}]}}"
    ran = await execute(f"- {{id: rows, type: loop, over: '[[7, 8], [9]]', as: row, steps: [{inner}]}}")
    seen = [[each["seen"] for each in row["items"]] for row in ran.result["items"]]
    assert seen == [[[[7, 8], 7, 0], [[7, 8], 8, 1]], [[[9], 9, 0]]]


async def test_what_is_cut_in_the_trace_says_so_and_flows_on_whole(execute: Execute) -> None:
    ran = await execute(
        """
- {id: a, type: code, code: 'return {"text": "x" * 10000}'}
- {id: b, type: code, code: 'return {"length": len(text)}'}
"""
    )
    assert ran.result == {"length": 10000}
    a, b = ran.step("a"), ran.step("b")
    assert (a.truncated, a.output_size_bytes) == (True, 10011)
    assert (b.truncated, b.input_size_bytes) == (True, 10011)


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("{id: s, type: code, timeout_ms: 50, code: 'while True: pass'}", "STEP_TIMEOUT"),
        (
            "{id: s, type: code, code: 'return 7'}",
            "INVALID_OUTPUT: the code of step 's' returned a value of type int;",
        ),
        ("{id: s, type: code, code: 'return {\"x\": {1, 2}}'}", "INVALID_OUTPUT"),
        ("{id: s, type: code, code: 'x = 1'}", "INVALID_OUTPUT: the code of step 's' returned nothing;"),
        ("{id: s, type: code, code: 'return {\"x\": 1 / 0}'}", "CODE_ERROR"),
        ("{id: s, type: code, code: 'import socket'}", "CODE_ERROR"),
        ('{id: s, type: code, code: \'return {"x": "a" * 10**9}\'}', "SANDBOX_LIMIT"),
        ("{id: s, type: llm, model: echo, prompt: '{{ nobody }}'}", "TEMPLATE_ERROR"),
        ("{id: s, type: llm, model: echo}", "TEMPLATE_ERROR"),
        ("{id: s, type: passthrough, input: {x: '{{ initial.ghost.y }}'}}", "TEMPLATE_ERROR"),
        ("{id: s, type: llm, model: 'nonsense:x', prompt: x}", "MODEL_NOT_SUPPORTED"),
        (
            "{id: s, type: loop, over: '7', steps: [{id: x, type: passthrough}]}",
            "INVALID_INPUT: `over: 7` of loop 's' is of type int, not a list",
        ),
        ("{id: s, type: loop, over: nothing, steps: [{id: x, type: passthrough}]}", "CODE_ERROR"),
        ("{id: s, type: condition, if: 1 / 0, then: [{id: x, type: passthrough}]}", "CODE_ERROR"),
        (
            "{id: s, type: parallel, input: {x: '{{ no }}'}, branches: {a: [{id: x, type: wait, ms: 1}]}}",
            "TEMPLATE_ERROR",
        ),
    ],
)
async def test_a_step_that_cannot_work_fails_with_its_code_and_its_input(
    execute: Execute, step: str, told: str
) -> None:
    ran = await execute(f"- {step}", {"a": "in"}, capture="metadata_only")
    assert f"{ran.error['code']}: {ran.error['message']}".startswith(told)
    failed = ran.step("s")
    assert failed.status == "failed"
    prompt = {"__rendered_prompt__": "x"} if "prompt: x" in step else {}
    assert failed.input_context == {"a": "in", **prompt}
    assert failed.error_context == ran.error


def loop_of(count: int) -> str:
    step = "{id: x, type: passthrough, input: {n: '{{ initial.n }}'}}"
    return f"- {{id: s, type: loop, over: list(range({count})), steps: [{step}]}}"


def parallel_of(count: int) -> str:
    branches = ", ".join(f"b{n}: [{{id: x{n}, type: passthrough}}]" for n in range(count))
    return f"- {{id: s, type: parallel, branches: {{{branches}}}}}"


@pytest.mark.parametrize("container", [loop_of, parallel_of])
async def test_a_container_joins_no_more_values_than_are_soon_read(
    execute: Execute, container: Callable[[int], str]
) -> None:
    """A float like this takes as long as 300 values: two lists of them may be joined, three may not."""
    inputs = {"n": [1e300] * 6_000}
    assert (await execute(container(2), inputs)).outcome.status == "completed"
    ran = await execute(container(3), inputs)
    assert (ran.error["code"], ran.error["limit"], ran.error["value"]) == ("RUN_LIMIT", "values", 5_000_000)
    assert ran.step("s").error_context == ran.error


async def test_what_runs_beside_a_lost_step_is_cut_off_and_says_so(execute: Execute) -> None:
    ran = await execute(
        """
- id: both
  type: parallel
  branches:
    bad: [{id: bad, type: code, code: "raise ValueError('x')"}]
    slow: [{id: slow, type: code, code: "while True: pass"}]
"""
    )
    assert ran.outcome.step_id == "bad"
    slow = ran.step("slow")
    assert (slow.status, there(slow.error_context)["code"]) == ("failed", "CANCELLED")
    assert ran.types()[-1] == "flow_failed"
    assert not [step for step in ran.trace.steps if step.status == "running"]


async def test_streamed_text_adds_up_to_the_output(execute: Execute) -> None:
    ran = await execute("- {id: a, type: llm, model: echo}", {"message": "one two three four"})
    parts = [event.text for event in ran.events if isinstance(event, StepProgress)]
    assert "".join(parts) == "one two three four"
    assert ran.result == {"text": "one two three four"}


async def test_the_event_that_ends_a_cancelled_run_ends_its_steps(house: EngineHarness) -> None:
    started = await house.start("- {id: a, type: code, code: 'while True: pass'}")
    await house.follow(started.id, until=2)
    assert house.engine.active.cancel(started.id, reason="asked for")
    assert house.engine.active.cancel(started.id, reason="asked for again")
    ran = await house.read(started.id, await started.outcome())
    assert ran.types()[-2:] == ["step_input", "flow_cancelled"]
    assert ran.step("a").error_context == {"code": "CANCELLED", "message": "asked for"}
    assert not house.engine.active.cancel(started.id, reason="too late")


@pytest.mark.parametrize("capture", ["metadata_only", "full"])
async def test_a_run_cancelled_before_its_first_turn_ends_as_cancelled(
    house: EngineHarness, capture: CaptureMode
) -> None:
    started = await house.start("- {id: a, type: passthrough}", {"message": "hello"}, capture=capture)
    assert house.engine.active.cancel(started.id, reason="at once")
    ran = await house.read(started.id, await started.outcome())
    input_of_run = ["run_input"] if capture == "full" else []
    assert ran.types() == ["run_started", *input_of_run, "flow_cancelled"]
    assert ran.trace.flow_run.status == "cancelled"
    assert ran.trace.flow_run.input_preview == ("hello" if capture == "full" else None)


async def test_a_run_whose_input_cannot_be_told_at_first_fails_with_all_of_its_log(
    house: EngineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, failures = Capture.prepare, [MemoryError()]

    async def failing_once(self: Capture, payload: Payload, *, failed: bool = False) -> None:
        if failures:
            raise failures.pop()
        await prepare(self, payload, failed=failed)

    monkeypatch.setattr(Capture, "prepare", failing_once)
    ran = await house.run_to_end("- {id: a, type: passthrough}", {"message": "hello"})
    assert ran.error["code"] == "INTERNAL_ERROR"
    assert ran.types() == ["run_started", "run_input", "flow_failed"]


async def test_a_run_that_the_store_failed_can_be_cancelled_before_it_goes_on(house: EngineHarness) -> None:
    faults, full = FaultyStore(house.store), StoreError("the disk is full")
    faults.fail("append", full, when=lambda batch: b'"step_completed"' in b"".join(batch.events))
    started = await house.start("- {id: a, type: code, code: 'return {}'}")
    with pytest.raises(StoreError):
        await started.outcome()
    assert house.engine.active.cancel(started.id, reason="asked for")
    faults.mend("append")
    await house.engine.claims.keep_lease()
    ran = await house.read_at_end(started.id)
    assert ran.types()[-1] == "flow_cancelled"


async def test_a_cancellation_that_meets_a_failure_is_not_lost(
    house: EngineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a sibling of a failed step unwinds, the run is cancelled; `on_error` must not outlive that."""
    cancelled = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(house.engine.active.cancel(started.id, reason="asked for"))
            await asyncio.sleep(0)

    def performing(step: Any, *rest: Any) -> Any:
        return slow() if step.id == "slow" else perform(step, *rest)

    monkeypatch.setattr("runglass.engine.steps.attempt_runner.perform", performing)
    started = await house.start(
        """
- id: both
  type: parallel
  on_error: continue
  branches:
    slow: [{id: slow, type: passthrough}]
    bad: [{id: bad, type: code, code: "raise ValueError('x')"}]
- {id: after, type: passthrough}
""",
    )
    ran = await house.read(started.id, await started.outcome())
    assert cancelled == [True]
    assert ran.trace.flow_run.status == "cancelled"
    assert "after" not in {step.step_id for step in ran.trace.steps}
