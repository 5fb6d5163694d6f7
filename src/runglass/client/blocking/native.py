"""What the blocking client does in a way of its own, written by hand; `aio/native.py` has the same names."""

import inspect
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from runglass.client.core.connection import ServerConnection
from runglass.client.core.requests import RequestSpec, following_page
from runglass.client.core.tools import ToolCall, ToolHandler, arguments_of, content_of
from runglass.log.trace import RunSummary
from runglass.wire.run_api import RunPage

if TYPE_CHECKING:
    from runglass.client.blocking.runs import Run
    from runglass.client.transport.blocking import SyncTransport

PRINTED_ROWS = 200
_CLIENTS: "weakref.WeakSet[Connected]" = weakref.WeakSet()


class Connected:
    """Has a transport, which is made when it is first needed.

    Loading the HTTP library takes longer than all the rest, so it waits for the first flow or run.
    """

    def __init__(self, endpoint: ServerConnection) -> None:
        self._endpoint = endpoint
        self._made: SyncTransport | None = None
        self._making = threading.RLock()  # a signal handler may close the client just then
        self._closed = False
        _CLIENTS.add(self)
        if not endpoint.is_plain:
            _ = self._transport  # making the transport checks such a URL, and raises

    @property
    def _transport(self) -> "SyncTransport":
        with self._making:
            if self._made is None:
                from runglass.client.transport.blocking import SyncTransport

                self._made = SyncTransport(self._endpoint)
                if self._closed:
                    self._made.close()
            return self._made

    def begin_process(self) -> None:
        """Opens connections of its own in a process that was forked.

        On those of its parent each of the two would read answers to the other.
        """
        self._making = threading.RLock()
        if self._made is None or self._closed:
            return
        from runglass.client.transport.blocking import SyncTransport

        if isinstance(self._made, SyncTransport):
            # In its place: flows and runs have it, too.
            SyncTransport.__init__(self._made, self._endpoint)

    def close(self) -> None:
        """Closes every connection; leaving the context manager does it too.

        Calls and streams that still wait raise RuntimeError at once.
        """
        with self._making:
            self._closed = True
            if self._made is not None:
                self._made.close()


def _begin_process() -> None:
    for client in list(_CLIENTS):
        client.begin_process()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_process)


# `dict` holds the transport and the call for the next page: a field would be part of the page's JSON.
class RunPages(RunPage, frozen=True, kw_only=True, rename="camel", dict=True):
    """A page of runs, newest first. `next_cursor` is None on the last page.

    A loop over it yields the runs of this page, then those of all pages that follow, each fetched when the
    loop comes to it.
    """

    def __iter__(self) -> Iterator[RunSummary]:
        page: RunPage = self
        while True:
            yield from page.runs
            if page.next_cursor is None:
                return
            if "_way_on" not in self.__dict__:
                raise RuntimeError("a copy of a page cannot ask for the next one: use client.runs(cursor=…)")
            transport, call, timeout = self.__dict__["_way_on"]
            page = transport.call(following_page(call, page.next_cursor), timeout=timeout)


def pages_of(transport: "SyncTransport", call: RequestSpec[RunPage], *, timeout: float | None) -> RunPages:
    """The page that `call` asks for. Raises as the transport does."""
    first = transport.call(call, timeout=timeout)
    pages = RunPages(runs=first.runs, next_cursor=first.next_cursor, last_change=first.last_change)
    pages.__dict__["_way_on"] = (transport, call, timeout)
    return pages


def text_of(run: "Run") -> str:
    """The run and the first rows of its tree, for `print(run)`. Asks the server; raises as `outline`."""
    summary, tree = run.summary(), run.outline(limit=PRINTED_ROWS)
    error = summary.error
    why = f": {error.code} {error.message or ''}".rstrip() if error is not None else ""
    return f"{summary.flow_slug or summary.flow_id} {summary.id}  {summary.status}{why}\n{tree}"


def callable_here(handler: ToolHandler) -> ToolHandler:
    """The handler. Raises TypeError for one that is async."""
    inner: Any = handler
    while isinstance(inner, partial):
        inner = inner.func
    for each in (inner, type(inner).__call__):
        if inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each):
            raise TypeError(f"tool_handler {handler!r} is async, {_NOT_AWAITED}")
    return handler


_NOT_AWAITED = "which this client cannot await: use AsyncClient, or a plain function"


def answers(calls: Sequence[ToolCall], handler: ToolHandler) -> dict[str, str]:
    """The handler's results of all calls by call id, one after the other."""
    return {call.id: _answer(call, handler) for call in calls}


def _answer(call: ToolCall, handler: ToolHandler) -> str:
    arguments = arguments_of(call)
    if isinstance(arguments, str):
        return arguments
    value = handler(call.name, arguments)
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        raise TypeError(f"tool_handler returned an awaitable for {call.name!r}, {_NOT_AWAITED}")
    return content_of(value)
