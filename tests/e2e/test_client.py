"""The client against a real server: one list of scenarios, run blocking and on asyncio."""

import re
from typing import Any

import pytest

from runglass import (
    Client,
    FlowCompleted,
    FlowExecutionError,
    RunStarted,
    StepCompleted,
    StepOutput,
    StepPaused,
)
from runglass.testing import RunningServer
from tests.servers import server_with
from tests.unit.client.sides import Side

WALK = """
slug: walk
steps:
  - {id: first, type: code, code: "return {'words': message.split()}"}
  - id: each
    type: loop
    over: words
    as: word
    steps: [{id: shout, type: code, code: "return {'text': word.upper()}"}]
  - {id: last, type: code, code: "return {'texts': [item['text'] for item in items]}"}
"""
EDIT = """
slug: edit
steps:
  - {id: first, type: code, code: "return {'n': 1}"}
  - {id: second, type: code, code: "return {'n': n + 1}"}
  - {id: third, type: code, code: "return {'n': n + 1}"}
"""
BROKEN = """
slug: broken
steps:
  - {id: fine, type: passthrough}
  - {id: bad, type: code, code: "return 1 / 0"}
"""


server = server_with(WALK, EDIT, BROKEN)


def connect(side: Side, server: RunningServer, **options: Any) -> Any:
    return side.client(server.base_url, api_key=server.key, org="acme", project="demo", **options)


def test_a_walk_is_one_run_with_one_trace(server: RunningServer, side: Side) -> None:
    flow = connect(side, server).flow("walk")
    results = side.events(flow.steps(message="a b"))
    assert [(each.step_id, each.loop_index, each.step_index) for each in results] == [
        ("first", None, 0),
        ("shout", 0, 1),
        ("shout", 1, 1),
        ("last", None, 2),
    ]
    assert results[-1].output == {"texts": ["A", "B"]}
    (run_id,) = {each.execution_id for each in results}
    trace = side.value(flow.run(run_id).trace())
    assert (trace.flow_run.status, trace.flow_run.trigger_type) == ("completed", "step")
    assert [step.step_id for step in trace.steps] == ["first", "shout", "shout", "last"]


def test_events_of_a_walk_are_those_of_its_trace(server: RunningServer, side: Side) -> None:
    flow = connect(side, server).flow("walk")
    events = side.events(flow.events(message="a b"))
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], FlowCompleted)
    assert events[-1].result == {"texts": ["A", "B"]}
    # What the log does not keep comes in the walk without a number.
    assert [each.event_type for each in events if each.seq == 0] == ["step_output"] * 4
    outputs = [each.output_data for each in events if isinstance(each, StepOutput)]
    assert outputs == [each.output for each in events if isinstance(each, StepCompleted)]
    events = [each for each in events if each.seq]
    assert [each.seq for each in events] == list(range(1, len(events) + 1))
    assert [each.step_index for each in events if isinstance(each, StepPaused)] == [0, 1]
    told = side.events(flow.run(events[0].execution_id).live_trace())
    assert [(each.seq, each.event_type) for each in told] == [(each.seq, each.event_type) for each in events]


def test_a_walk_that_is_left_stays_paused(server: RunningServer, side: Side) -> None:
    flow = connect(side, server).flow("edit")
    steps = side.following(flow.steps())
    run = flow.run(next(steps).execution_id)
    steps.close()
    trace = side.value(run.trace())
    assert (trace.flow_run.status, len(trace.steps)) == ("paused", 1)
    side.value(run.cancel())
    assert side.value(run.wait(60)).status == "cancelled"


def test_a_failed_step_ends_a_walk_as_it_ends_a_run(server: RunningServer, side: Side) -> None:
    flow = connect(side, server).flow("broken")
    steps = side.following(flow.steps())
    assert next(steps).step_id == "fine"
    with pytest.raises(FlowExecutionError) as walked:
        next(steps)
    with pytest.raises(FlowExecutionError) as executed:
        side.value(flow.execute())
    kept = ("code", "step_id", "message", "details", "status")
    assert [getattr(walked.value, name) for name in kept] == [getattr(executed.value, name) for name in kept]
    assert walked.value.execution_id is not None
    assert side.value(flow.run(walked.value.execution_id).wait(60)).status == "failed"


def test_a_run_is_printed_as_its_tree_and_a_trace_is_one_line(server: RunningServer) -> None:
    with Client(server.key, base_url=server.base_url) as client:
        flow = client.flow("acme/demo/walk")
        run = flow.run(flow.execute(message="good day").execution_id)
        assert repr(run.trace()) == f"<Trace of run {run.execution_id}: completed, 4 steps>"
        printed = re.sub(r", \d+ ms", "", str(run)).splitlines()
    assert printed == [
        f"walk {run.execution_id}  completed",
        "first  completed",
        "each  completed",
        "  [0]  completed",
        "    shout  completed",
        "  [1]  completed",
        "    shout  completed",
        "last  completed",
    ]
