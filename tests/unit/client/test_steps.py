"""Step-throughs: the client carries the cursor, counts by the flow, and lets go when its caller does."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from runglass import (
    APIConnectionError,
    AsyncClient,
    FlowExecutionError,
    FlowNotFoundError,
    StepOutput,
    ToolCallLimitError,
)
from runglass.wire.sse import PING, RETRY, unnumbered_frame
from tests.unit.client.scripted import (
    EVENT_STREAM,
    RESULT,
    TOOLS,
    Mute,
    Scene,
    ScriptedServer,
    answers,
    event,
    flow,
    hangs_up,
    refuses,
    sends,
)
from tests.unit.client.sides import KEY, Side

STARTED = event(1, "run_started", runId="r1", flowId="f", stepCount=3, triggerType="step", version=1)
DONE = event(90, "flow_completed", runId="r1", result={"n": 3})


def step(seq: int, step_id: str, index: int) -> bytes:
    at: dict[str, Any] = {"stepId": step_id, "stepIndex": index, "attempt": 1}
    ended = {"name": step_id.upper(), "output": {"n": index}, "durationMs": 5}
    return event(seq, "step_started", **at) + event(seq + 1, "step_completed", **at, **ended)


def paused(seq: int, index: int) -> bytes:
    return event(seq, "step_paused", stepIndex=index)


def streams(*parts: bytes) -> Scene:
    return sends(RETRY + b"".join(parts))


def cuts(*parts: bytes) -> Scene:
    """Promises more than it sends."""
    body = RETRY + b"".join(parts)
    return sends(body, {**EVENT_STREAM, "content-length": str(len(body) + 10)})


ABSOLUTE = [
    streams(STARTED, step(2, "a", 0), paused(4, 1)),
    streams(step(5, "b", 1), paused(7, 2)),
    streams(step(8, "c", 2), DONE),
]
BY_SEGMENT = [ABSOLUTE[0], streams(step(5, "b", 0), paused(7, 1)), streams(step(8, "c", 0), DONE)]


@pytest.mark.parametrize("scenes", [ABSOLUTE, BY_SEGMENT], ids=["absolute", "by segment"])
def test_a_flow_is_walked_step_by_step(server: ScriptedServer, side: Side, scenes: Sequence[Scene]) -> None:
    server.plays(*scenes)
    steps = side.following(
        flow(side, server).steps(message="hi", parameters={"p": 1}, input_overrides={"x": 1}, trace=True)
    )
    for number, (result, step_id) in enumerate(zip(steps, ("a", "b", "c"), strict=True)):
        assert len(server.requests) == number + 1, "the next step is asked for when its result is"
        assert (result.execution_id, result.step_id, result.step_index) == ("r1", step_id, number)
        assert (result.name, result.attempt, result.duration_ms) == (step_id.upper(), 1, 5)
    inputs = {"message": "hi", "parameters": {"p": 1}, "trace": True}
    assert server.sent() == [
        {**inputs, "inputOverrides": {"x": 1}},
        {**inputs, "executionId": "r1", "stepIndex": 1},
        {**inputs, "executionId": "r1", "stepIndex": 2},
    ]
    assert {each.target for each in server.requests} == {"/api/v1/seq/a/p/s/step"}
    assert len({each.headers["idempotency-key"] for each in server.requests}) == 3
    assert server.requests[0].headers["accept"] == "text/event-stream"


def test_a_replaced_output_is_what_the_next_step_gets(server: ScriptedServer, side: Side) -> None:
    server.plays(*ABSOLUTE)
    results = []
    for result in side.following(flow(side, server).steps()):
        results.append(result)
        if result.step_id != "b":
            continue
        with pytest.raises(ValueError, match="'a' cannot be replaced any more"):
            results[0].replace_output({"n": 7})
        result.replace_output({"n": 8})
        result.replace_output({"n": 9})
    with pytest.raises(ValueError, match="'c' cannot be replaced any more"):
        results[2].replace_output({})
    assert [body.get("accumulatedOutputs") for body in server.sent()] == [None, None, {"b": {"n": 9}}]
    assert results[1].output == {"n": 1}


ERROR = {"code": "CODE_ERROR", "message": "no"}
LOST = event(4, "step_error", stepId="a", stepIndex=0, attempt=1, error=ERROR)
FAILED = event(5, "flow_failed", runId="r1", stepId="a", error=ERROR)


@pytest.mark.parametrize("ending", [b"", FAILED], ids=["step_error", "flow_failed"])
def test_a_step_that_fails_for_good_is_raised(server: ScriptedServer, side: Side, ending: bytes) -> None:
    server.plays(streams(STARTED, LOST, ending))
    with pytest.raises(FlowExecutionError, match=r"step 'a' failed: no \(CODE_ERROR\)") as caught:
        side.events(flow(side, server).steps())
    error = caught.value
    assert (error.code, error.step_id, error.execution_id) == ("STEP_FAILED", "a", "r1")
    assert error.details["error"] == ERROR
    events = side.following(flow(side, server).events())
    assert [next(events).event_type for _ in range(2)] == ["run_started", "step_error"]
    with pytest.raises(FlowExecutionError):
        list(events)
    assert len(server.requests) == 2


def test_a_lost_step_that_the_flow_goes_on_without_is_no_failure(server: ScriptedServer, side: Side) -> None:
    server.plays(streams(STARTED, LOST, paused(5, 1)), streams(step(6, "b", 1), DONE))
    assert [each.step_id for each in side.events(flow(side, server).steps())] == ["b"]
    assert server.sent()[1]["stepIndex"] == 1


def asks_for_tools(seq: int) -> bytes:
    return event(
        seq,
        "step_paused_for_tool_calls",
        runId="r1",
        stepId="b",
        stepIndex=0,
        iterationsUsed=1,
        toolCallMessages=[{"role": "assistant"}],
        toolCalls=[{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
        accumulatedOutputs={"a": {"n": 0}},
    )


def test_tool_calls_of_a_step_are_answered_on_the_way(server: ScriptedServer, side: Side) -> None:
    begun = event(5, "step_started", stepId="b", stepIndex=0, attempt=1)
    server.plays(
        ABSOLUTE[0],
        streams(begun, asks_for_tools(6)),
        streams(step(7, "b", 0), paused(9, 1)),
        streams(step(10, "c", 0), DONE),
    )
    steps = side.following(flow(side, server).steps(tools=TOOLS, tool_handler=lambda name, arguments: name))
    first = next(steps)
    first.replace_output({"n": 7})
    seen = [(result.step_id, result.step_index) for result in (first, *steps)]
    assert seen == [("a", 0), ("b", 1), ("c", 2)]
    _, second, third, fourth = server.sent()
    replaced = {"executionId": "r1", "stepIndex": 1, "accumulatedOutputs": {"a": {"n": 7}}}
    assert second == {"tools": TOOLS, **replaced}
    answer = {"role": "tool", "toolCallId": "c1", "content": "weather"}
    told = {"iterationsUsed": 1, "toolCallMessages": [{"role": "assistant"}, answer]}
    assert third == {"tools": TOOLS, **replaced, **told}
    assert (fourth["stepIndex"], "toolCallMessages" in fourth) == (2, False)


def test_too_many_rounds_leave_a_run_that_can_go_on(server: ScriptedServer, side: Side) -> None:
    server.plays(streams(STARTED, asks_for_tools(2)))
    with pytest.raises(ToolCallLimitError) as caught:
        side.events(
            flow(side, server).steps(tools=TOOLS, max_tool_rounds=2, tool_handler=lambda name, arguments: 1)
        )
    assert len(server.requests) == 3
    server.plays(answers(RESULT))
    side.value(caught.value.paused.resume({"c1": 1}))
    assert server.requests[-1].target == "/api/v1/seq/a/p/s/execute"
    assert server.sent()[-1]["pausedAtStep"] == "b"


def told_output(step_id: str) -> bytes:
    """A frame that is no event of the run's log, as servers send it: without an id, and with seq 0."""
    event = {"eventType": "step_output", "executionId": "r1", "seq": 0, "stepId": step_id, "outputData": {}}
    return unnumbered_frame("step_output", msgspec.json.encode(event))


def test_a_lost_answer_is_asked_for_again_under_the_same_key_and_each_frame_comes_once(
    server: ScriptedServer, side: Side
) -> None:
    """Also frames that are no events of the log: the answer that is sent again has them where they were."""
    parts = [STARTED, told_output("a"), told_output("b"), step(2, "a", 0), told_output("c"), DONE]
    aborted = [cuts(*parts[:cut]) for cut in range(1, len(parts))]
    for scene in (hangs_up, refuses(503, "UNAVAILABLE"), *aborted):
        server.plays(scene, streams(*parts))
        events = side.events(flow(side, server).events())
        assert [each.seq for each in events] == [1, 0, 0, 2, 3, 0, 90]
        assert [each.step_id for each in events if isinstance(each, StepOutput)] == ["a", "b", "c"]
        first, again = server.requests[-2:]
        assert first.headers["idempotency-key"] == again.headers["idempotency-key"]
        assert first.body == again.body
    server.plays(cuts(STARTED, LOST), streams(STARTED, step(2, "a", 0), PING, DONE))
    assert [each.seq for each in side.events(flow(side, server).events())] == [1, 4, 90]


def test_a_complete_answer_is_not_asked_for_again_however_it_ends(server: ScriptedServer, side: Side) -> None:
    server.plays(cuts(STARTED, step(2, "a", 0), paused(4, 1)), cuts(step(5, "b", 1), DONE))
    assert [each.step_id for each in side.events(flow(side, server).steps())] == ["a", "b"]
    assert (len(server.requests), side.waits) == (2, [])


def test_an_answer_of_another_run_is_not_mixed_in(server: ScriptedServer, side: Side) -> None:
    server.plays(cuts(STARTED), streams(STARTED.replace(b'"r1"', b'"r2"')))
    with pytest.raises(APIConnectionError, match=r"aborted in run 'r1'.*'r2'"):
        side.events(flow(side, server).events())


async def test_cancelling_the_task_closes_the_connection(server: ScriptedServer) -> None:
    mute = Mute(opens=1)
    server.plays(mute)
    async with AsyncClient(KEY, base_url=server.url) as client:
        steps = client.flow("a/p/s").steps()
        waiting = asyncio.ensure_future(anext(steps))
        assert await asyncio.to_thread(mute.asked.wait, 60)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()
        assert await asyncio.to_thread(mute.left.wait, 60)


def test_a_cancelled_walk_is_raised(server: ScriptedServer, side: Side) -> None:
    server.plays(streams(STARTED, step(2, "a", 0), event(4, "flow_cancelled", runId="r1", reason="by hand")))
    steps = side.following(flow(side, server).steps())
    assert next(steps).step_id == "a"
    with pytest.raises(FlowExecutionError, match="the run was cancelled: by hand"):
        next(steps)


def test_a_step_through_gives_up_as_other_calls_do(server: ScriptedServer, side: Side) -> None:
    server.plays(hangs_up)
    with pytest.raises(APIConnectionError, match="failed after 3 attempts"):
        side.events(flow(side, server).steps())
    server.plays(refuses(404, "FLOW_NOT_FOUND"))
    with pytest.raises(FlowNotFoundError):
        side.events(flow(side, server).steps())
    server.plays(answers(b"<html>Welcome", headers={"Content-Type": "text/html"}))
    with pytest.raises(APIConnectionError, match=r"Welcome.*is the base URL right"):
        side.events(flow(side, server).steps())
    assert len(server.requests) == 5
