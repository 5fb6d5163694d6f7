"""A run that is paused for the results of tool calls, and the loop that answers them until the run ends.

Blocking, and on asyncio; `make check` proves the twins one program.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from runglass.client.core.run_requests import Execution
from runglass.client.core.tools import Results, ToolHandler, answers, async_answers, calls_in, result_messages
from runglass.errors import ToolCallLimitError
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
