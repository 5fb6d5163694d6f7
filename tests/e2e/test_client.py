"""The client against a real server: one list of scenarios, run blocking and on asyncio.

At the end, that a trace equals the fold of its events, as a client reads both over HTTP.
"""

import re
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass import (
    Client,
    FlowCompleted,
    FlowExecutionError,
    FlowNotFoundError,
    RequestError,
    RunStarted,
    StepCompleted,
    StepOutput,
    StepPaused,
)
from runglass.flows.flow import Flow
from runglass.log.fold import fold
from runglass.testing import RunningServer
from runglass.wire.run_api import RunChange
from tests.browser.cutting_proxy import cutting_proxy
from tests.contract.wire import ANYTHING, BROKEN
from tests.examples import examples
from tests.flows import flow_trees
from tests.servers import server_with
from tests.unit.client.sides import Blocking, Side

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


server = server_with(WALK, BROKEN, ANYTHING, ANYTHING.replace("anything", "other"))


def connect(side: Side, server: RunningServer, address: str | None = None) -> Any:
    return side.client(address or server.base_url, api_key=server.key, org="acme", project="demo")


def test_a_walk_is_one_run_with_one_trace_and_its_events_are_those_of_the_run(
    server: RunningServer, side: Side
) -> None:
    flow = connect(side, server).flow("walk")
    results = side.events(flow.steps(message="a b"))
    assert [(each.step_id, each.loop_index, each.step_index) for each in results] == [
        ("first", None, 0),
        ("shout", 0, 1),
        ("shout", 1, 1),
        ("last", None, 2),
    ]
    assert results[-1].output == {"texts": ["A", "B"]}
    with pytest.raises(ValueError, match="inside a loop"):
        results[1].replace_output({})
    (run_id,) = {each.execution_id for each in results}
    trace = side.value(flow.run(run_id).trace())
    assert [step.step_id for step in trace.steps] == [each.step_id for each in results]

    events = side.events(flow.events(message="a b"))
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], FlowCompleted)
    assert events[-1].result == {"texts": ["A", "B"]}
    # What the log does not keep comes in the walk without a number.
    assert [each.event_type for each in events if each.seq == 0] == ["step_output"] * 4
    outputs = [each.output for each in results]
    assert [each.output_data for each in events if isinstance(each, StepOutput)] == outputs
    assert [each.output for each in events if isinstance(each, StepCompleted)] == outputs
    assert [each.step_index for each in events if isinstance(each, StepPaused)] == [0, 1]
    told = [(each.seq, each.event_type) for each in events if each.seq]
    live = side.events(flow.run(events[0].execution_id).live_trace())
    assert [(each.seq, each.event_type) for each in live] == told


def test_a_walk_that_is_left_stays_paused(server: RunningServer, side: Side) -> None:
    flow = connect(side, server).flow("walk")
    steps = side.following(flow.steps(message="a b"))
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


@pytest.mark.parametrize("side", [Blocking], indirect=True)
def test_a_run_is_printed_as_its_tree_and_a_trace_is_one_line(server: RunningServer, side: Side) -> None:
    client = connect(side, server)
    run = client.run(client.flow("walk").execute(message="good day").execution_id)
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


def test_a_run_is_run_again_compared_and_deleted(server: RunningServer, side: Side) -> None:
    client = connect(side, server)
    first = client.run(execute(side, client, "anything"))
    again = side.value(first.rerun(version="production", idempotency_key="once"))
    assert (
        side.value(first.rerun(version="production", idempotency_key="once")).execution_id
        == again.execution_id
    )
    with pytest.raises(RequestError, match="no step 'none'"):
        side.value(first.rerun(block_overrides={"none": {"model": "echo"}}))
    assert side.value(again.wait(60)).rerun_of == first.execution_id
    assert side.value(again.diff(first)) == side.value(again.diff(first.execution_id))
    assert side.value(again.diff(first)).same
    side.value(again.delete())
    with pytest.raises(FlowNotFoundError):
        side.value(again.summary())


def execute(side: Side, client: Any, slug: str) -> str:
    """The id of a run that has kept its input."""
    found: str = side.value(client.flow(slug).execute(trace=True)).execution_id
    return found


def ended(changes: Iterator[RunChange], number: int) -> list[str]:
    """The ids of the next so many runs that have completed."""
    done = (each.run_id for each in changes if each.run is not None and each.run.status == "completed")
    return list(islice(done, number))


def test_changes_behind_a_page_come_once_and_in_order_through_any_cuts_and_a_number_resumes(
    server: RunningServer, side: Side
) -> None:
    client = connect(side, server)
    after = side.value(client.runs()).last_change
    execute(side, client, "other")
    ids = [execute(side, client, "anything") for _ in range(12)]
    with cutting_proxy(server.address, seed=7) as (address, _):
        live = connect(side, server, address).live_runs(query="flow:anything", after=after)
        with closing(side.following(live)) as changes:
            first = next(changes)
            assert (first.run_id, first.run is not None) == (ids[0], True)
            assert ended(changes, 11) == ids[1:]
    with closing(side.following(client.live_runs(after=first.number))) as changes:
        assert ended(changes, 11) == ids[1:]


@examples(12, of=25)
@given(flow=flow_trees(), live=st.booleans())
def test_the_trace_is_the_fold_of_the_live_trace(server: RunningServer, flow: Flow, *, live: bool) -> None:
    """With nested loops, parallel branches, retries, skips and failures; afterwards and meanwhile."""
    server.push(flow.encode().decode())
    with Client(server.key, base_url=server.base_url, org="acme", project="demo") as client:
        job = client.flow("generated").execute_async(parameters={"n": 1}, trace=True)
        if not live:
            job.run.wait(60)
        told = fold(job.run.live_trace())
        assert job.run.trace() == told
        assert told.flow_run.status in ("completed", "failed")
        listed = msgspec.structs.replace(told.flow_run, input=None, result=None)
        assert next(client.flow("generated").runs(limit=1)) == listed
