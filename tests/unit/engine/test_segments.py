"""Runs that are walked in more than one segment: tool calls, step-through, and what is left in between."""

import asyncio

import msgspec
import pytest

from runglass.engine.journal.run_spec import Pause, RunSpec, Segment, SegmentSpec, ToolOffer
from runglass.flows.parser import parse_flow
from tests.unit.engine.conftest import EngineHarness, follow, maintenance, read, start

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


async def test_a_short_pause_limit_is_kept_while_the_process_goes_on(house: EngineHarness) -> None:
    started = await start(house, TALK, {"message": "hi"}, segment=Segment(offer=ToolOffer(tools=TOOLS)))
    outcome = await started.outcome()
    housekeeping = maintenance(house, pause_limit_h=8 / 3600)
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
