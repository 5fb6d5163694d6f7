"""Tool calls: what the handler gets, what goes back, and that a paused run is never lost."""

import asyncio
import functools
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest

from runglass import AsyncClient, CompletedResult, ToolCallLimitError
from runglass.client.core.tools import content_of, result_messages
from tests.unit.client.scripted import RESULT, TOOLS, ScriptedServer, answers, flow
from tests.unit.client.sides import KEY, RUN, Blocking, Side

TURNS: list[dict[str, Any]] = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": ""}]


def call(call_id: str, arguments: str = '{"city": "Ulm"}') -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "weather", "arguments": arguments}}


def pause(*calls: dict[str, Any], round_: int = 1) -> dict[str, Any]:
    return {
        "status": "tool_calls_required",
        "executionId": RUN,
        "pausedAtStep": "ask",
        "iterationsUsed": round_,
        "toolCallMessages": TURNS,
        "toolCalls": list(calls),
        "accumulatedOutputs": {"first": {"n": 1}},
        "flowId": "f",
        "blockCount": 2,
    }


def test_a_handler_answers_every_round_until_the_run_ends(server: ScriptedServer, side: Side) -> None:
    server.plays(
        answers(pause(call("c1"), call("c2", "{}"))), answers(pause(call("c3"), round_=2)), answers(RESULT)
    )
    handler = Mock(side_effect=lambda name, arguments: "dry" if arguments else {"rain": 0.5})
    given = {"message": "hi", "parameters": {"p": 1}, "tools": TOOLS}
    handled = {"tool_choice": "auto", "tool_handler": handler, "version": 3}
    assert isinstance(side.value(flow(side, server).execute(**given, **handled)), CompletedResult)
    seen = [each.args for each in handler.mock_calls]
    assert seen == [("weather", {"city": "Ulm"}), ("weather", {}), ("weather", {"city": "Ulm"})]
    first, second, third = server.sent()
    asked = {**given, "toolChoice": "auto"}
    assert first == asked
    assert second == {
        **asked,
        "executionId": RUN,
        "pausedAtStep": "ask",
        "iterationsUsed": 1,
        "accumulatedOutputs": {"first": {"n": 1}},
        "toolCallMessages": [
            *TURNS,
            {"role": "tool", "toolCallId": "c1", "content": "dry"},
            {"role": "tool", "toolCallId": "c2", "content": '{"rain":0.5}'},
        ],
    }
    assert third["iterationsUsed"] == 2
    assert {each.target for each in server.requests} == {"/api/v1/seq/a/p/s/v3/execute"}
    assert len({each.headers["idempotency-key"] for each in server.requests}) == 3


@pytest.mark.parametrize(
    ("results", "says"),
    [
        ({}, "no result for tool call 'c1', 'c2'"),
        ({"c1": 1, "c2": 2, "c3": 3}, "does not wait for tool call 'c3'"),
        ([{"toolCallId": "c1", "content": ""}], "no result for tool call 'c2'"),
        ([{"toolCallId": i, "output": 1} for i in ("c1", "c2", "c2")], "more than one result for"),
        (
            [{"content": "lost"}, {"toolCallId": "c1"}, {"tool_call_id": "c2"}],
            "does not wait for tool call None",
        ),
    ],
)
def test_results_that_do_not_fit_are_refused_before_any_request(
    server: ScriptedServer, side: Side, results: Any, says: str
) -> None:
    server.plays(answers(pause(call("c1"), call("c2"))))
    paused = side.value(flow(side, server).execute(tools=TOOLS))
    with pytest.raises(ValueError, match=says):
        side.value(paused.resume(results))
    assert len(server.requests) == 1


def test_an_exception_of_the_handler_leaves_a_run_that_can_go_on(server: ScriptedServer, side: Side) -> None:
    failure = LookupError("no network")
    server.plays(answers(pause(call("c1"))), answers(RESULT))
    with pytest.raises(LookupError) as caught:
        side.value(flow(side, server).execute(tools=TOOLS, tool_handler=Mock(side_effect=failure)))
    assert caught.value is failure
    paused = vars(caught.value)["paused"]
    assert "error.paused.resume" in caught.value.__notes__[0]
    assert isinstance(side.value(paused.resume({"c1": "dry"})), CompletedResult)


def test_a_model_that_does_not_stop_asking_meets_the_limit(server: ScriptedServer, side: Side) -> None:
    server.plays(answers(pause(call("c1"))))
    handler = Mock(return_value=1)
    with pytest.raises(ToolCallLimitError, match="more than 3 rounds") as caught:
        side.value(flow(side, server).execute(tools=TOOLS, max_tool_rounds=3, tool_handler=handler))
    assert (handler.call_count, len(server.requests)) == (3, 4)
    server.plays(answers(RESULT))
    assert isinstance(side.value(caught.value.paused.resume({"c1": "dry"})), CompletedResult)


def test_arguments_that_cannot_be_read_are_told_to_the_model(server: ScriptedServer, side: Side) -> None:
    server.plays(answers(pause(call("c1", "{city: Ulm"), call("c2", ""), call("c3", "[1]"))), answers(RESULT))
    handler = Mock(return_value=None)
    side.value(flow(side, server).execute(tools=TOOLS, tool_handler=handler))
    assert [each.args for each in handler.mock_calls] == [("weather", {})]
    bad, empty, listed = server.sent()[1]["toolCallMessages"][-3:]
    assert "no JSON object" in bad["content"]
    assert empty["content"] == "null"
    assert "no JSON object" in listed["content"]


class Answers:
    async def __call__(self, name: str, arguments: dict[str, Any]) -> str:
        return "dry"


@pytest.mark.parametrize("side", [Blocking], indirect=True)
@pytest.mark.parametrize(
    "handler",
    [Answers(), Answers().__call__, functools.partial(Answers().__call__)],
    ids=["object", "method", "partial"],
)
def test_the_blocking_client_refuses_async_handlers_before_any_request(
    server: ScriptedServer, side: Side, handler: Callable[..., Any]
) -> None:
    for ask in ("execute", "steps", "events"):
        with pytest.raises(TypeError, match="is async"):
            getattr(flow(side, server), ask)(tools=TOOLS, tool_handler=handler)
    assert server.requests == []


async def test_the_calls_of_a_round_are_answered_at_the_same_time(server: ScriptedServer) -> None:
    server.plays(answers(pause(call("c1"), call("c2"), call("c3"))), answers(RESULT))
    together = asyncio.Barrier(3)

    async def handler(name: str, arguments: dict[str, Any]) -> int:
        return await together.wait()

    async with AsyncClient(KEY, base_url=server.url) as client:
        await client.flow("a/p/s").execute(tools=TOOLS, tool_handler=handler)
    contents = [message["content"] for message in server.sent()[1]["toolCallMessages"][-3:]]
    assert sorted(contents) == ["0", "1", "2"]


async def test_one_failed_call_cancels_the_others_of_its_round(server: ScriptedServer) -> None:
    server.plays(answers(pause(call("c1"), call("c2", "{}"))))
    ended: list[str] = []

    async def handler(name: str, arguments: dict[str, Any]) -> str:
        if not arguments:
            raise LookupError("no city")
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)
        return "never"

    async with AsyncClient(KEY, base_url=server.url) as client:
        with pytest.raises(LookupError, match="no city") as caught:
            await client.flow("a/p/s").execute(tools=TOOLS, tool_handler=handler)
    assert ended == ["weather"]
    assert vars(caught.value)["paused"].execution_id == RUN


def test_contents_are_text_or_json() -> None:
    values = ["as it is", "", None, 1.5, {"a": [1]}, ["x"], b"\x00"]
    assert [content_of(value) for value in values] == [
        "as it is", "", "null", "1.5", '{"a":[1]}', '["x"]', '"AA=="',
    ]  # fmt: skip
    # Half a character is replaced: the run waits, and the rest serves the model.
    assert content_of("sunny \ud83d") == "sunny \ufffd"
    assert content_of({"a": ["\ud800"], "\ud800": 1}) == '{"a":["\ufffd"],"\ufffd":1}'
    assert result_messages([], {}) == []
