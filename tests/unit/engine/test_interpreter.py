"""What the engine does with each kind of step, and that the log says so."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from runglass.engine.steps.attempt_runner import perform
from runglass.errors import StoreError
from runglass.log.events import (
    LoopStarted,
    StepProgress,
    StepRetrying,
    StepSkipped,
)
from runglass.store.sqlite.store import SqliteStore
from runglass.wire.run_api import CaptureMode
from tests.faulty_store import FaultyStore
from tests.unit.engine.conftest import (
    EngineHarness,
    Execute,
    follow,
    open_harness,
    read,
    read_at_end,
    start,
)

ALL_KINDS = """
- {id: split, type: code, code: 'return {"words": words, "count": len(words)}'}
- id: each
  type: loop
  over: words
  as: word
  max_concurrency: 2
  steps:
    - {id: ask, type: llm, model: echo, prompt: "Say {{ word }} {{ index }}"}
    - id: shaky
      type: code
      retry: {max_attempts: 2, initial_delay_ms: 10}
      code: |
        if attempt == 1 and index == 1:
          raise ValueError("not yet")
        return {"text": text, "word": word}
- id: route
  type: condition
  if: len(items) > 2
  then: [{id: many, type: passthrough}]
  else: [{id: few, type: passthrough}]
- id: both
  type: parallel
  branches:
    left: [{id: l, type: wait, ms: 5}]
    right: [{id: r, type: code, code: 'return {"n": len(items)}'}]
- id: end
  type: passthrough
  input: {left: "{{ left.items }}", n: "{{ right.n }}", note: "{{ right.n }} items"}
"""


async def test_every_kind_of_step_in_one_flow(execute: Execute) -> None:
    ran = await execute(ALL_KINDS, {"words": ["a", "b", "c"]})
    assert ran.result == {
        "left": [{"text": f"Say {word} {index}", "word": word} for index, word in enumerate("abc")],
        "n": 3,
        "note": "3 items",
    }
    assert sorted(ran.steps(), key=str) == sorted(
        [
            ("split", None, 1, "completed"),
            *(("ask", (index,), 1, "completed") for index in range(3)),
            ("shaky", (0,), 1, "completed"),
            ("shaky", (1,), 2, "completed"),
            ("shaky", (2,), 1, "completed"),
            ("many", None, 1, "completed"),
            ("few", None, 1, "skipped"),
            ("l", None, 1, "completed"),
            ("r", None, 1, "completed"),
            ("end", None, 1, "completed"),
        ],
        key=str,
    )
    assert [(step.loop_path, step.attempt, step.status) for step in ran.attempts["shaky"]] == [
        ((0,), 1, "completed"),
        ((1,), 1, "failed"),
        ((1,), 2, "completed"),
        ((2,), 1, "completed"),
    ]
    assert ran.step("ask", (1,)).tokens is not None
    assert ran.step("ask", (1,)).model_used == "echo"
    [skipped] = [event for event in ran.events if isinstance(event, StepSkipped)]
    assert skipped.reason == "condition 'route' was true"


async def test_nested_loops_have_one_address_per_iteration(execute: Execute) -> None:
    ran = await execute(
        """
- id: rows
  type: loop
  over: table
  as: row
  steps:
    - id: cells
      type: loop
      over: row
      as: cell
      max_concurrency: 3
      steps: [{id: square, type: code, code: 'return {"v": cell * cell, "at": index}'}]
""",
        {"table": [[1, 2], [3]]},
    )
    assert ran.result == {
        "items": [{"items": [{"v": 1, "at": 0}, {"v": 4, "at": 1}]}, {"items": [{"v": 9, "at": 0}]}]
    }
    assert [(step.loop_path, step.loop_index) for step in ran.trace.steps] == [
        ((0, 0), 0),
        ((0, 1), 1),
        ((1, 0), 0),
    ]
    begun = [event for event in ran.events if isinstance(event, LoopStarted)]
    assert [(event.step_id, event.loop_path, event.iterations, event.step_ids) for event in begun] == [
        ("rows", None, 2, ["square"]),
        ("cells", (0,), 2, ["square"]),
        ("cells", (1,), 1, ["square"]),
    ]
    assert ran.trace.flow_run.expected_steps == len(ran.trace.steps)


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


async def test_a_nearer_name_hides_a_farther_one(execute: Execute) -> None:
    ran = await execute(
        """
- id: l
  type: loop
  over: '[{"index": "field"}]'
  as: steps_of
  steps:
    - {id: a, type: passthrough, input: {index: mine}}
    - {id: b, type: code, code: 'return {"index": index, "word": steps_of["index"]}'}
"""
    )
    assert ran.result == {"items": [{"index": "mine", "word": "field"}]}


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


async def test_a_failed_step_is_tried_again_as_often_as_allowed_with_growing_delays(
    execute: Execute, house: EngineHarness
) -> None:
    ran = await execute(
        """
- id: a
  type: code
  retry: {max_attempts: 4, initial_delay_ms: 100, multiplier: 3, max_delay_ms: 500}
  code: 'raise ValueError(f"attempt {attempt}")'
"""
    )
    assert ran.outcome.step_id == "a"
    assert "attempt 4" in ran.error["message"]
    assert house.clock.slept_s == [0.1, 0.3, 0.5]
    assert [event.delay_ms for event in ran.events if isinstance(event, StepRetrying)] == [100, 300, 500]
    tried = [(step.attempt, step.status) for step in ran.attempts["a"]]
    assert tried == [(number, "failed") for number in (1, 2, 3, 4)]
    assert ran.attempts["a"][-1].error_context == ran.error


@pytest.mark.parametrize(
    ("step", "code"),
    [
        ("{id: s, type: code, timeout_ms: 50, code: 'while True: pass'}", "STEP_TIMEOUT"),
        ("{id: s, type: code, code: 'return 7'}", "INVALID_OUTPUT"),
        ("{id: s, type: code, code: 'return {\"x\": {1, 2}}'}", "INVALID_OUTPUT"),
        ("{id: s, type: code, code: 'x = 1'}", "INVALID_OUTPUT"),
        ("{id: s, type: code, code: 'return {\"x\": 1 / 0}'}", "CODE_ERROR"),
        ("{id: s, type: code, code: 'import socket'}", "CODE_ERROR"),
        ('{id: s, type: code, code: \'return {"x": "a" * 10**9}\'}', "SANDBOX_LIMIT"),
        ("{id: s, type: llm, model: echo, prompt: '{{ nobody }}'}", "TEMPLATE_ERROR"),
        ("{id: s, type: llm, model: echo}", "TEMPLATE_ERROR"),
        ("{id: s, type: passthrough, input: {x: '{{ initial.ghost.y }}'}}", "TEMPLATE_ERROR"),
        ("{id: s, type: llm, model: 'nonsense:x', prompt: x}", "MODEL_NOT_SUPPORTED"),
        ("{id: s, type: loop, over: '7', steps: [{id: x, type: passthrough}]}", "INVALID_INPUT"),
        ("{id: s, type: loop, over: nothing, steps: [{id: x, type: passthrough}]}", "CODE_ERROR"),
        ("{id: s, type: condition, if: 1 / 0, then: [{id: x, type: passthrough}]}", "CODE_ERROR"),
        (
            "{id: s, type: parallel, input: {x: '{{ no }}'}, branches: {a: [{id: x, type: wait, ms: 1}]}}",
            "TEMPLATE_ERROR",
        ),
    ],
)
async def test_a_step_that_cannot_work_fails_with_its_code_and_its_input(
    execute: Execute, step: str, code: str
) -> None:
    ran = await execute(f"- {step}", {"a": "in"}, capture="metadata_only")
    assert ran.error["code"] == code
    failed = ran.step("s")
    assert failed.status == "failed"
    prompt = {"__rendered_prompt__": "x"} if "prompt: x" in step else {}
    assert failed.input_context == {"a": "in", **prompt}
    assert failed.error_context == ran.error


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
    assert slow.error_context is not None
    assert (slow.status, slow.error_context["code"]) == ("failed", "CANCELLED")
    assert ran.types()[-1] == "flow_failed"
    assert not [step for step in ran.trace.steps if step.status == "running"]


async def test_leaves_of_a_branch_not_taken_are_skipped_at_their_iteration(execute: Execute) -> None:
    ran = await execute(
        """
- id: l
  type: loop
  over: xs
  steps:
    - id: c
      type: condition
      if: item > 1
      then: [{id: big, type: passthrough}]
      else:
        - id: inner
          type: loop
          over: '[1]'
          steps: [{id: deep, type: passthrough}]
        - {id: small, type: passthrough}
""",
        {"xs": [1, 2]},
    )
    assert ran.steps() == [
        ("big", (0,), 1, "skipped"),
        ("deep", (0, 0), 1, "completed"),
        ("small", (0,), 1, "completed"),
        ("deep", (1,), 1, "skipped"),
        ("small", (1,), 1, "skipped"),
        ("big", (1,), 1, "completed"),
    ]


async def test_streamed_text_adds_up_to_the_output(execute: Execute) -> None:
    ran = await execute("- {id: a, type: llm, model: echo}", {"message": "one two three four"})
    parts = [event.text for event in ran.events if isinstance(event, StepProgress)]
    assert "".join(parts) == "one two three four"
    assert ran.result == {"text": "one two three four"}


async def test_the_event_that_ends_a_cancelled_run_ends_its_steps(house: EngineHarness) -> None:
    started = await start(house, "- {id: a, type: code, code: 'while True: pass'}")
    await follow(house, started.id, until=2)
    assert house.engine.active.cancel(started.id, reason="asked for")
    assert house.engine.active.cancel(started.id, reason="asked for again")
    ran = await read(house, started.id, await started.outcome())
    assert ran.types()[-2:] == ["step_input", "flow_cancelled"]
    assert ran.step("a").error_context == {"code": "CANCELLED", "message": "asked for"}
    assert not house.engine.active.cancel(started.id, reason="too late")


@pytest.mark.parametrize("capture", ["metadata_only", "full"])
async def test_a_run_cancelled_before_its_first_turn_ends_as_cancelled(
    house: EngineHarness, capture: CaptureMode
) -> None:
    started = await start(house, "- {id: a, type: passthrough}", {"message": "hello"}, capture=capture)
    assert house.engine.active.cancel(started.id, reason="at once")
    ran = await read(house, started.id, await started.outcome())
    input_of_run = ["run_input"] if capture == "full" else []
    assert ran.types() == ["run_started", *input_of_run, "flow_cancelled"]
    assert ran.trace.flow_run.status == "cancelled"
    assert ran.trace.flow_run.input_preview == ("hello" if capture == "full" else None)


async def test_a_run_that_the_store_failed_can_be_cancelled_before_it_goes_on(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "db", synchronous="NORMAL")
    faults, full = FaultyStore(store), StoreError("the disk is full")
    faults.fail("append", full, when=lambda batch: b'"step_completed"' in b"".join(batch.events))
    async with open_harness(store) as house:
        started = await start(house, "- {id: a, type: code, code: 'return {}'}")
        with pytest.raises(StoreError):
            await started.outcome()
        assert house.engine.active.cancel(started.id, reason="asked for")
        faults.mend("append")
        await house.engine.claims.keep_lease()
        ran = await read_at_end(house, started.id)
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
    started = await start(
        house,
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
    ran = await read(house, started.id, await started.outcome())
    assert cancelled == [True]
    assert ran.trace.flow_run.status == "cancelled"
    assert "after" not in {step.step_id for step in ran.trace.steps}
