"""Performs the calls of a step-through: as events or as one result per step. Blocking, and on asyncio.

A step-through that is left early makes no further call. Between two steps it holds no connection; within a
step, closing the generator closes the connection.
"""

from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, closing
from typing import TYPE_CHECKING

from runglass.client.api.tool_pause import AsyncPausedResult, PausedResult, limit_passed, with_paused
from runglass.client.core.run_requests import StepThrough
from runglass.client.core.step_session import StepResult, StepSession
from runglass.client.core.step_stream import ENDS, StepStream
from runglass.client.core.tools import (
    ToolHandler,
    answers,
    async_answers,
    check_conversation,
    result_messages,
)
from runglass.errors import APIConnectionError
from runglass.log.events import StepCompleted, StreamEvent

if TYPE_CHECKING:  # for names alone: the transports load the HTTP library
    from runglass.client.transport.blocking import SyncTransport
    from runglass.client.transport.on_asyncio import AsyncTransport


class ToolAnswers:
    """The handler of tool calls in a step-through, with the number of rounds left.

    Raises TypeError for a handler that cannot be called here, ValueError for tools without a handler.
    """

    def __init__(
        self, asked: StepThrough, handler: ToolHandler | None, max_tool_rounds: int, *, blocking: bool
    ) -> None:
        self._handler = check_conversation(handler, max_tool_rounds, blocking=blocking)
        self._most = max_tool_rounds
        self._rounds = 0
        if asked.request.tools and handler is None:
            raise ValueError(
                "tools need a tool_handler in a step-through; to answer the calls yourself, use `execute`"
            )

    def next_round(self, paused: PausedResult | AsyncPausedResult) -> ToolHandler:
        """The handler, for one more round. Raises ToolCallLimitError after the last."""
        if self._handler is None:
            raise APIConnectionError(f"run {paused.execution_id!r} waits for tools that nobody has offered")
        if self._rounds == self._most:
            raise limit_passed(paused, self._most)
        self._rounds += 1
        return self._handler


def events_of(
    transport: "SyncTransport", walk: StepSession, tools: ToolAnswers
) -> Generator[StreamEvent, None, None]:
    """Every event of the walk. Raises as `StepSession.conclude` and `ToolAnswers.next_round` do."""
    while not walk.ended:
        stream = StepStream(walk.next_call(), transport.endpoint.max_retries)
        with closing(transport.follow(stream)) as events:
            for event in events:
                yield walk.read(event)
        _turn(transport, walk, tools)


def steps_of(
    transport: "SyncTransport", walk: StepSession, tools: ToolAnswers
) -> Generator[StepResult, None, None]:
    """A result for each step that is completed. Raises as `events_of` does."""
    while not walk.ended:
        stream = StepStream(walk.next_call(), transport.endpoint.max_retries)
        held: StepResult | None = None
        with closing(transport.follow(stream)) as events:
            for each in events:
                event = walk.read(each)
                # The last result waits for the end of the answer, so that its caller holds no connection.
                if held is not None and not isinstance(event, ENDS):
                    yield held
                    held = None
                if isinstance(event, StepCompleted):
                    held = walk.result_of(event)
        if held is not None:
            yield held
        _turn(transport, walk, tools)


async def async_events_of(
    transport: "AsyncTransport", walk: StepSession, tools: ToolAnswers
) -> AsyncGenerator[StreamEvent, None]:
    """Every event of the walk. Raises as `StepSession.conclude` and `ToolAnswers.next_round` do."""
    while not walk.ended:
        stream = StepStream(walk.next_call(), transport.endpoint.max_retries)
        async with aclosing(transport.follow(stream)) as events:
            async for event in events:
                yield walk.read(event)
        await _async_turn(transport, walk, tools)


async def async_steps_of(
    transport: "AsyncTransport", walk: StepSession, tools: ToolAnswers
) -> AsyncGenerator[StepResult, None]:
    """A result for each step that is completed. Raises as `async_events_of` does."""
    while not walk.ended:
        stream = StepStream(walk.next_call(), transport.endpoint.max_retries)
        held: StepResult | None = None
        async with aclosing(transport.follow(stream)) as events:
            async for each in events:
                event = walk.read(each)
                # The last result waits for the end of the answer, so that its caller holds no connection.
                if held is not None and not isinstance(event, ENDS):
                    yield held
                    held = None
                if isinstance(event, StepCompleted):
                    held = walk.result_of(event)
        if held is not None:
            yield held
        await _async_turn(transport, walk, tools)


def _turn(transport: "SyncTransport", walk: StepSession, tools: ToolAnswers) -> None:
    walk.conclude()
    if walk.waiting is None:
        return
    paused = PausedResult(transport, walk.asked.as_execution(), walk.waiting)
    handler = tools.next_round(paused)
    with with_paused(paused):
        results = answers(paused.tool_calls, handler)
    walk.answer(result_messages(paused.tool_calls, results))


async def _async_turn(transport: "AsyncTransport", walk: StepSession, tools: ToolAnswers) -> None:
    walk.conclude()
    if walk.waiting is None:
        return
    paused = AsyncPausedResult(transport, walk.asked.as_execution(), walk.waiting)
    handler = tools.next_round(paused)
    with with_paused(paused):
        results = await async_answers(paused.tool_calls, handler)
    walk.answer(result_messages(paused.tool_calls, results))
