"""The client against a real server: one list of scenarios, run blocking and on asyncio."""

import re
import uuid
from typing import Any

import pytest

from runglass import (
    Client,
    FlowCompleted,
    FlowExecutionError,
    FlowNotFoundError,
    RunStarted,
    StepCompleted,
    StepOutput,
    StepPaused,
    StepPausedForToolCalls,
    StreamEvent,
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
ASK = """
slug: ask
steps:
  - {id: before, type: passthrough}
  - {id: ask, type: llm, model: echo, prompt: "{{ message }}", settings: {parallel_tool_calls: false}}
  - {id: after, type: code, code: "return {'said': text}"}
"""
BROKEN = """
slug: broken
steps:
  - {id: fine, type: passthrough}
  - {id: bad, type: code, code: "return 1 / 0"}
"""
SLOW = """
slug: slow
steps:
  - {id: wait, type: wait, ms: 60000}
"""
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("one", "two")
]


server = server_with(WALK, EDIT, ASK, BROKEN, SLOW)


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


def test_two_runs_are_compared_by_a_run_or_an_id(server: RunningServer, side: Side) -> None:
    flow = connect(side, server).flow("walk")
    a, b = (side.value(flow.execute(message=words, trace=True)).execution_id for words in ("a b", "a c"))
    found = side.value(flow.run(a).diff(flow.run(b)))
    assert [(row.step_id, row.loop_path) for row in found.rows] == [
        ("first", None),
        ("shout", (1,)),
        ("last", None),
    ]
    assert side.value(flow.run(a).diff(b)) == found
    assert len(side.value(flow.run(a).diff(b, all=True)).rows) == 4
    with pytest.raises(FlowNotFoundError, match="there is no run 'unknown'"):
        side.value(flow.run(a).diff("unknown"))


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


def test_a_run_is_deleted_for_good_whether_or_not_it_has_ended(server: RunningServer, side: Side) -> None:
    flow = connect(side, server).flow("slow")
    job = side.value(flow.execute_async())
    assert side.value(job.run.delete()) is None
    with pytest.raises(FlowNotFoundError):
        side.value(job.run.trace())
    with pytest.raises(FlowNotFoundError):
        side.value(job.run.delete())


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


@pytest.mark.parametrize("how", ["execute", "steps", "events"])
def test_tool_calls_are_answered_until_the_run_ends(server: RunningServer, side: Side, how: str) -> None:
    flow = connect(side, server).flow("ask")
    seen: list[tuple[str, dict[str, Any]]] = []

    def handler(name: str, arguments: dict[str, Any]) -> dict[str, int]:
        seen.append((name, arguments))
        return {"n": len(seen)}

    given = {"message": "hi", "tools": TOOLS, "tool_handler": handler}
    if how == "execute":
        assert side.value(flow.execute(**given)).result == {"said": "hi"}
    elif how == "steps":
        results = side.events(flow.steps(**given))
        assert [each.step_id for each in results] == ["before", "ask", "after"]
        assert results[-1].output == {"said": "hi"}
    else:
        events = side.events(flow.events(**given))
        assert sum(isinstance(each, StepPausedForToolCalls) for each in events) == 2
        assert [each.step_index for each in events if isinstance(each, StepCompleted)] == [0, 1, 2]
    assert seen == [("one", {}), ("two", {})]


def test_jobs_end_with_their_result_or_error(server: RunningServer, side: Side) -> None:
    client = connect(side, server)
    job = side.value(client.flow("walk").execute_async(message="a"))
    assert side.value(job.run.wait(60)).status == "completed"
    assert side.value(job.wait(60)) == {"texts": ["A"]}
    assert side.value(job.run.trace()).flow_run.trigger_type == "job"
    failed = side.value(client.flow("broken").execute_async(version=1))
    assert side.value(failed.run.wait(60)).status == "failed"
    with pytest.raises(FlowExecutionError, match="step 'bad' failed"):
        side.value(failed.wait(60))


def test_the_same_messages_and_session_reach_the_server(server: RunningServer, side: Side) -> None:
    session = uuid.uuid4()
    flow = connect(side, server, session_id=session).flow("ask")
    turns = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    done = side.value(flow.execute(messages=turns))
    assert done.result == {"said": "three"}
    walked: list[StreamEvent] = side.events(flow.events(message="hi"))
    record = server.call(server.runtime.store.run(walked[0].execution_id))
    assert record is not None
    assert record.session_id == str(session)


def test_a_session_has_every_run_with_what_it_gave(server: RunningServer, side: Side) -> None:
    session_id = uuid.uuid4()
    client = connect(side, server, session_id=session_id)
    flow = client.flow("walk")
    side.value(flow.execute(message="a b", trace=True))
    side.events(flow.steps(message="c"))
    for limit in (None, 1):
        first, second = side.events(client.session(session_id, limit=limit))
        assert (first.trigger_type, second.trigger_type) == ("execute", "step")
        assert first.steps[-1].output_snapshot == {"texts": ["A", "B"]}
        assert (second.snapshots_available, second.steps[-1].output_snapshot) == (False, None)
        assert [step.step_id for step in second.steps] == ["first", "shout", "last"]


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
