"""A run that pauses: for the results of tool calls, and after each step of a step-through.

Here are the loops that resume it until it has ended. A step-through that is left early makes no further call.
Between two steps it holds no connection; within a step, closing the generator closes the connection.

Blocking, and on asyncio; `make check` proves the twins one program.
"""

from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing, closing, contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from runglass.client.core.run_requests import Execution, StepThrough
from runglass.client.core.step_session import ENDS, StepResult, StepSession, StepStream
from runglass.client.core.tools import (
    Results,
    ToolHandler,
    answers,
    async_answers,
    calls_in,
    check_conversation,
    result_messages,
)
from runglass.errors import APIConnectionError, ToolCallLimitError
from runglass.log.events import StepCompleted, StreamEvent
from runglass.wire.run_api import CompletedResult, ToolCallsRequired

if TYPE_CHECKING:  # for names alone: the transports load the HTTP library
    from runglass.client.transport.blocking import SyncTransport
    from runglass.client.transport.on_asyncio import AsyncTransport

Transport = TypeVar("Transport", "SyncTransport", "AsyncTransport")


class _Paused(Generic[Transport]):
    def __init__(self, transport: Transport, execution: Execution, pause: ToolCallsRequired) -> None:
        self.execution_id = pause.execution_id
        self.paused_at_step = pause.paused_at_step
        self.iterations_used = pause.iterations_used
        self.tool_calls = calls_in(pause.tool_calls)
        self.tool_call_messages = pause.tool_call_messages
        self.accumulated_outputs = pause.accumulated_outputs
        self.flow_id = pause.flow_id
        self.block_count = pause.block_count
        self._transport: Transport = transport
        self._execution = execution
        self._pause = pause

    def __repr__(self) -> str:
        names = [call.name for call in self.tool_calls]
        return f"{type(self).__name__}({self.execution_id!r}, tool_calls={names})"


class PausedResult(_Paused["SyncTransport"]):
    """The run is paused until the results of `tool_calls` come in, for as long as the server keeps it."""

    def resume(self, results: Results, *, timeout: float | None = None) -> "CompletedResult | PausedResult":
        """Lets the run go on: its result, or the next pause.

        `results` has the value of each call by its id (text goes to the model as it is, anything else as
        JSON), or is the list of messages `{"role": "tool", "toolCallId": …, "content": …}`. `timeout` and
        what is raised are those of `Flow.execute`; ValueError, before anything is sent, where a result is
        missing or belongs to no call.
        """
        execution = self._execution.resumed(self._pause, result_messages(self.tool_calls, results))
        answer = self._transport.call(execution.call(), timeout=timeout)
        if isinstance(answer, CompletedResult):
            return answer
        return PausedResult(self._transport, self._execution, answer)


class AsyncPausedResult(_Paused["AsyncTransport"]):
    """The run is paused until the results of `tool_calls` come in, for as long as the server keeps it."""

    async def resume(
        self, results: Results, *, timeout: float | None = None
    ) -> "CompletedResult | AsyncPausedResult":
        """Lets the run go on: its result, or the next pause.

        `results` has the value of each call by its id (text goes to the model as it is, anything else as
        JSON), or is the list of messages `{"role": "tool", "toolCallId": …, "content": …}`. `timeout` and
        what is raised are those of `Flow.execute`; ValueError, before anything is sent, where a result is
        missing or belongs to no call.
        """
        execution = self._execution.resumed(self._pause, result_messages(self.tool_calls, results))
        answer = await self._transport.call(execution.call(), timeout=timeout)
        if isinstance(answer, CompletedResult):
            return answer
        return AsyncPausedResult(self._transport, self._execution, answer)


def converse(
    paused: PausedResult, handler: ToolHandler, *, max_tool_rounds: int, timeout: float | None
) -> CompletedResult:
    """The result of the run, its tool calls answered by `handler`. Raises ToolCallLimitError."""
    for _ in range(max_tool_rounds):
        with with_paused(paused):
            results = answers(paused.tool_calls, handler)
        answer = paused.resume(results, timeout=timeout)
        if isinstance(answer, CompletedResult):
            return answer
        paused = answer
    raise limit_passed(paused, max_tool_rounds)


async def async_converse(
    paused: AsyncPausedResult, handler: ToolHandler, *, max_tool_rounds: int, timeout: float | None
) -> CompletedResult:
    """The result of the run, its tool calls answered by `handler`. Raises ToolCallLimitError."""
    for _ in range(max_tool_rounds):
        with with_paused(paused):
            results = await async_answers(paused.tool_calls, handler)
        answer = await paused.resume(results, timeout=timeout)
        if isinstance(answer, CompletedResult):
            return answer
        paused = answer
    raise limit_passed(paused, max_tool_rounds)


@contextmanager
def with_paused(paused: PausedResult | AsyncPausedResult) -> Iterator[None]:
    """Adds the paused run to an exception of a handler, as its attribute `paused`."""
    try:
        yield
    except Exception as error:
        vars(error)["paused"] = paused
        error.add_note(
            f"run {paused.execution_id!r} is still paused; go on with it by `error.paused.resume(…)`"
        )
        raise


def limit_passed(paused: PausedResult | AsyncPausedResult, max_tool_rounds: int) -> ToolCallLimitError:
    """The exception for a model that asks for tools in too many rounds."""
    return ToolCallLimitError(
        f"the model asked for tools in more than {max_tool_rounds} rounds; run {paused.execution_id!r} is "
        f"still paused: allow more with `max_tool_rounds`, or go on with it by `error.paused.resume(…)`",
        paused=paused,
    )


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
    transport: "SyncTransport", session: StepSession, tools: ToolAnswers
) -> Generator[StreamEvent, None, None]:
    """Every event of the step-through. Raises as `StepSession.conclude` and `ToolAnswers.next_round` do."""
    while not session.ended:
        stream = StepStream(session.next_call(), transport.endpoint.max_retries)
        with closing(transport.follow(stream)) as events:
            for event in events:
                yield session.read(event)
        _end_call(transport, session, tools)


def steps_of(
    transport: "SyncTransport", session: StepSession, tools: ToolAnswers
) -> Generator[StepResult, None, None]:
    """A result for each step that is completed. Raises as `events_of` does."""
    while not session.ended:
        stream = StepStream(session.next_call(), transport.endpoint.max_retries)
        held: StepResult | None = None
        with closing(transport.follow(stream)) as events:
            for each in events:
                event = session.read(each)
                # The last result waits for the end of the answer, so that its caller holds no connection.
                if held is not None and not isinstance(event, ENDS):
                    yield held
                    held = None
                if isinstance(event, StepCompleted):
                    held = session.result_of(event)
        if held is not None:
            yield held
        _end_call(transport, session, tools)


async def async_events_of(
    transport: "AsyncTransport", session: StepSession, tools: ToolAnswers
) -> AsyncGenerator[StreamEvent, None]:
    """Every event of the step-through. Raises as `StepSession.conclude` and `ToolAnswers.next_round` do."""
    while not session.ended:
        stream = StepStream(session.next_call(), transport.endpoint.max_retries)
        async with aclosing(transport.follow(stream)) as events:
            async for event in events:
                yield session.read(event)
        await _async_end_call(transport, session, tools)


async def async_steps_of(
    transport: "AsyncTransport", session: StepSession, tools: ToolAnswers
) -> AsyncGenerator[StepResult, None]:
    """A result for each step that is completed. Raises as `async_events_of` does."""
    while not session.ended:
        stream = StepStream(session.next_call(), transport.endpoint.max_retries)
        held: StepResult | None = None
        async with aclosing(transport.follow(stream)) as events:
            async for each in events:
                event = session.read(each)
                # The last result waits for the end of the answer, so that its caller holds no connection.
                if held is not None and not isinstance(event, ENDS):
                    yield held
                    held = None
                if isinstance(event, StepCompleted):
                    held = session.result_of(event)
        if held is not None:
            yield held
        await _async_end_call(transport, session, tools)


def _end_call(transport: "SyncTransport", session: StepSession, tools: ToolAnswers) -> None:
    session.conclude()
    if session.waiting is None:
        return
    paused = PausedResult(transport, session.asked.as_execution(), session.waiting)
    handler = tools.next_round(paused)
    with with_paused(paused):
        results = answers(paused.tool_calls, handler)
    session.answer(result_messages(paused.tool_calls, results))


async def _async_end_call(transport: "AsyncTransport", session: StepSession, tools: ToolAnswers) -> None:
    session.conclude()
    if session.waiting is None:
        return
    paused = AsyncPausedResult(transport, session.asked.as_execution(), session.waiting)
    handler = tools.next_round(paused)
    with with_paused(paused):
        results = await async_answers(paused.tool_calls, handler)
    session.answer(result_messages(paused.tool_calls, results))
