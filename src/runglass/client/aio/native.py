"""What the client on asyncio does in a way of its own; `blocking/native.py` has the same names.

Everything else in this folder is the source of the blocking client, which `tools/twins.py` writes.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Generator, Sequence
from typing import TYPE_CHECKING, Any

from runglass.client.core.connection import ServerConnection
from runglass.client.core.requests import RequestSpec, following_page
from runglass.client.core.tools import ToolCall, ToolHandler, arguments_of, content_of
from runglass.client.transport.on_asyncio import AsyncTransport
from runglass.log.trace import RunSummary
from runglass.wire.run_api import RunPage

if TYPE_CHECKING:
    from runglass.client.aio.runs import AsyncRun


class Connected:
    """Has a transport, which is made at once: loading the HTTP library later would block the event loop."""

    def __init__(self, endpoint: ServerConnection) -> None:
        self._endpoint = endpoint
        self._transport = AsyncTransport(endpoint)

    async def aclose(self) -> None:
        """Closes every connection; leaving the context manager does it too.

        Calls and streams that still wait raise RuntimeError at once.
        """
        await self._transport.aclose()


class AsyncRunPages:
    """Runs, newest first: awaited it is a RunPage, and `async for` yields the runs of all pages.

    No request is made before one or the other.
    """

    def __init__(
        self, transport: AsyncTransport, call: RequestSpec[RunPage], *, timeout: float | None
    ) -> None:
        self._transport = transport
        self._call = call
        self._timeout = timeout

    def __await__(self) -> Generator[Any, None, RunPage]:
        return self._transport.call(self._call, timeout=self._timeout).__await__()

    async def __aiter__(self) -> AsyncIterator[RunSummary]:
        call = self._call
        while True:
            page = await self._transport.call(call, timeout=self._timeout)
            for run in page.runs:
                yield run
            if page.next_cursor is None:
                return
            call = following_page(self._call, page.next_cursor)


pages_of = AsyncRunPages


def text_of(run: "AsyncRun") -> str:
    """The run for `print`: nobody can wait for the server while a text is made."""
    return repr(run)


def callable_here(handler: ToolHandler) -> ToolHandler:
    """The handler: this client calls any."""
    return handler


async def answers(calls: Sequence[ToolCall], handler: ToolHandler) -> dict[str, str]:
    """The handler's results of all calls by call id, asked for at the same time where it is async."""
    failure: BaseException | None = None
    tasks: list[asyncio.Task[str]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks += [group.create_task(_answer(call, handler)) for call in calls]
    except BaseExceptionGroup as failures:
        failure = failures.exceptions[0]
    if failure is not None:
        # Raising it outside of the `except` block keeps the exception group out of its context.
        raise failure
    return {call.id: task.result() for call, task in zip(calls, tasks, strict=True)}


async def _answer(call: ToolCall, handler: ToolHandler) -> str:
    arguments = arguments_of(call)
    if isinstance(arguments, str):
        return arguments
    value = handler(call.name, arguments)
    return content_of(await value if isinstance(value, Awaitable) else value)
