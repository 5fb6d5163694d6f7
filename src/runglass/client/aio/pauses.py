"""A run that pauses: for the results of tool calls, and after each step of a step-through.

Here are the loops that resume it until it has ended. A step-through that is left early makes no further call.
Between two steps it holds no connection; within a step, closing the generator closes the connection.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from runglass.client.aio.native import answers, callable_here
from runglass.client.core.requests import is_count
from runglass.client.core.run_requests import Execution, Tools
from runglass.client.core.step_session import ENDS, StepResult, StepSession, StepStream
from runglass.client.core.tools import Results, ToolHandler, calls_in, result_messages
from runglass.errors import APIConnectionError, ToolCallLimitError
from runglass.log.events import StepCompleted, StreamEvent
from runglass.wire.run_api import CompletedResult, ToolCallsRequired

if TYPE_CHECKING:  # for its name alone: it loads the HTTP library
    from runglass.client.transport.on_asyncio import AsyncTransport


class AsyncPausedResult:
    """The run is paused until the results of `tool_calls` come in, for as long as the server keeps it."""

    def __init__(self, transport: "AsyncTransport", execution: Execution, pause: ToolCallsRequired) -> None:
        self.execution_id = pause.execution_id
        self.paused_at_step = pause.paused_at_step
        self.iterations_used = pause.iterations_used
        self.tool_calls = calls_in(pause.tool_calls)
        self.tool_call_messages = pause.tool_call_messages
        self.accumulated_outputs = pause.accumulated_outputs
        self.flow_id = pause.flow_id
        self.block_count = pause.block_count
        self.session_id = pause.session_id
        self._transport = transport
        self._execution = execution
        self._pause = pause

    def __repr__(self) -> str:
        names = [call.name for call in self.tool_calls]
        return f"{type(self).__name__}({self.execution_id!r}, tool_calls={names})"

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


class ToolAnswers:
    """The handler of tool calls, and for how many rounds.

    Raises TypeError for a handler that cannot be called here, ValueError for an impossible number, or for
    `tools` without a handler.
    """

    def __init__(self, handler: ToolHandler | None, max_tool_rounds: int, tools: Tools | None = None) -> None:
        if not is_count(max_tool_rounds, 1):
            raise ValueError(f"max_tool_rounds must be a number from 1 on, not {max_tool_rounds!r}")
        if handler is not None and not callable(handler):
            raise TypeError(
                f"tool_handler must be a function of a tool's name and arguments, not {handler!r}"
            )
        if tools and handler is None:
            raise ValueError(
                "tools need a tool_handler in a step-through; to answer the calls yourself, use `execute`"
            )
        self._handler = None if handler is None else callable_here(handler)
        self._most = max_tool_rounds
        self._rounds = 0

    async def results(self, paused: AsyncPausedResult) -> dict[str, str]:
        """What the handler answers; an exception of it has the paused run as its attribute `paused`.

        Raises ToolCallLimitError after the last round.
        """
        if self._handler is None:
            raise APIConnectionError(f"run {paused.execution_id!r} waits for tools that nobody has offered")
        if self._rounds == self._most:
            raise ToolCallLimitError(
                f"the model asked for tools in more than {self._most} rounds; run {paused.execution_id!r} is "
                f"still paused: allow more with `max_tool_rounds`, or go on with it by "
                f"`error.paused.resume(…)`",
                paused=paused,
            )
        self._rounds += 1
        try:
            return await answers(paused.tool_calls, self._handler)
        except Exception as error:
            vars(error)["paused"] = paused
            error.add_note(
                f"run {paused.execution_id!r} is still paused; continue it by `error.paused.resume(…)`"
            )
            raise

    async def converse(self, paused: AsyncPausedResult, *, timeout: float | None) -> CompletedResult:
        """The result of the run, all its tool calls answered. Raises as `results` does."""
        while True:
            answer = await paused.resume(await self.results(paused), timeout=timeout)
            if isinstance(answer, CompletedResult):
                return answer
            paused = answer


async def events_of(
    transport: "AsyncTransport", session: StepSession, tools: ToolAnswers
) -> AsyncGenerator[StreamEvent, None]:
    """Every event of the step-through. Raises as `StepSession.conclude` and `ToolAnswers.results` do."""
    while not session.ended:
        stream = StepStream(session.next_call(), transport.endpoint.max_retries)
        async with aclosing(transport.follow(stream)) as events:
            async for event in events:
                yield session.read(event)
        await _end_call(transport, session, tools)


async def steps_of(
    transport: "AsyncTransport", session: StepSession, tools: ToolAnswers
) -> AsyncGenerator[StepResult, None]:
    """A result for each step that is completed. Raises as `events_of` does."""
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
        await _end_call(transport, session, tools)


async def _end_call(transport: "AsyncTransport", session: StepSession, tools: ToolAnswers) -> None:
    session.conclude()
    if session.waiting is None:
        return
    paused = AsyncPausedResult(transport, session.asked.as_execution(), session.waiting)
    session.answer(result_messages(paused.tool_calls, await tools.results(paused)))
