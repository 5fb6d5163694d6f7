"""Runs that are walked in more than one segment: tool calls, step-through, and what is left in between."""

import asyncio
from datetime import timedelta

import msgspec
import pytest

from runglass.engine.journal.run_spec import Pause, RunSpec, Segment, SegmentSpec, ToolOffer
from runglass.engine.run.active_runs import StartedRun
from runglass.engine.run.task import RunOutcome
from runglass.flows.parser import parse_flow
from runglass.log.events import FlowCompleted, StepPausedForToolCalls, StepResumed
from runglass.wire.run_api import CaptureMode
from tests.unit.engine.conftest import (
    EngineHarness,
    follow,
    maintenance,
    read,
    resume,
    run_of,
    start,
)

TOOLS = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("one", "two")]
TALK = """
- {id: first, type: passthrough}
- {id: ask, type: llm, model: echo, prompt: "{{ message }}", settings: {parallel_tool_calls: false}}
- {id: last, type: code, code: 'return {"said": text, "first": steps["first"]["message"]}'}
"""
WALK = """
- {id: a, type: code, code: 'return {"n": n + 1}'}
- id: c
  type: condition
  if: n > 5
  then: [{id: big, type: passthrough}]
  else: [{id: small, type: passthrough}]
- {id: z, type: code, code: 'return {"n": n * 10, "a": steps["a"]["n"]}'}
"""


async def answer(house: EngineHarness, started: StartedRun, content: str) -> RunOutcome:
    """Answers the one pending tool call."""
    run = await run_of(house, started.id)
    assert run.status == "paused"
    pause = (await house.engine.idle.paused(run)).pause
    assert pause.tool_loop is not None
    [call] = pause.tool_loop.calls
    results = [{"role": "tool", "toolCallId": call["id"], "content": content}]
    resumed = await resume(house, run.id, Segment(first=pause.cursor, results=results))
    return await resumed.outcome()


@pytest.mark.parametrize("capture", ["full", "metadata_only"])
async def test_tool_calls_pause_the_run_and_their_results_resume_it(
    house: EngineHarness, capture: CaptureMode
) -> None:
    segment = Segment(offer=ToolOffer(tools=TOOLS))
    started = await start(house, TALK, {"message": "hello there"}, segment=segment, capture=capture)
    outcome = await started.outcome()
    [waiting] = [
        step for step in (await read(house, started.id, outcome)).trace.steps if step.step_id == "ask"
    ]
    assert waiting.status == "running"
    assert waiting.tokens is not None
    outcome = await answer(house, started, "result 1")
    outcome = await answer(house, started, "result 2")
    ran = await read(house, started.id, outcome)
    assert ran.result == {"said": "hello there", "first": "hello there"}
    assert ran.steps() == [(step_id, None, 1, "completed") for step_id in ("first", "ask", "last")]
    turns = [event for event in ran.events if isinstance(event, StepPausedForToolCalls)]
    assert [turn.iterations_used for turn in turns] == [1, 2]
    assert [len(turn.tool_calls) for turn in turns] == ([1, 1] if capture == "full" else [0, 0])
    resumed = [event for event in ran.events if isinstance(event, StepResumed)]
    assert len(resumed) == 2
    shown = [event.input_data["toolResults"][-1]["content"] for event in resumed if event.input_data]
    assert shown == (["result 1", "result 2"] if capture == "full" else [])
    completed, ended = ran.step("ask"), ran.events[-1]
    assert isinstance(ended, FlowCompleted)
    assert completed.tokens is not None
    assert ended.summary is not None
    assert ended.summary["tokens"]["total"] == completed.tokens.total > waiting.tokens.total


async def test_a_short_pause_limit_is_kept_while_the_process_goes_on(house: EngineHarness) -> None:
    started = await start(house, TALK, {"message": "hi"}, segment=Segment(offer=ToolOffer(tools=TOOLS)))
    outcome = await started.outcome()
    housekeeping = maintenance(house, pause_limit=timedelta(seconds=8))
    slept = len(house.clock.slept_s)
    keeping = asyncio.create_task(housekeeping.run_forever())
    await follow(house, started.id)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    ran = await read(house, started.id, outcome)
    assert ran.trace.flow_run.status == "cancelled"
    assert "for 0.00222 hours" in repr(ran.events[-1])
    assert house.clock.slept_s[slept] == 2.0


def test_a_segment_is_stored_under_the_name_that_earlier_versions_gave_it() -> None:
    spec = RunSpec(
        flow=parse_flow(f"slug: test\nsteps:\n{WALK}"),
        version=0,
        inputs={},
        capture="off",
        trigger_type="api",
    )
    stored = msgspec.json.encode(SegmentSpec(spec=spec, segment=Segment(first=1)))
    assert msgspec.json.decode(stored)["stretch"]["first"] == 1
    assert msgspec.json.decode(stored, type=SegmentSpec).segment.first == 1


def test_a_pause_for_tools_is_stored_under_the_name_that_earlier_versions_gave_it() -> None:
    tool_loop = {"step_id": "ask", "attempt": 1, "messages": [], "calls": [], "iterations_used": 1}
    stored = msgspec.json.encode(
        {"cursor": 0, "turns": {**tool_loop, "offer": {"tools": []}, "duration_ms": 5}, "reached": 0}
    )
    pause = msgspec.json.decode(stored, type=Pause)
    assert pause.tool_loop is not None
    assert pause.tool_loop.step_id == "ask"
    assert msgspec.json.decode(msgspec.json.encode(pause))["turns"]["duration_ms"] == 5
