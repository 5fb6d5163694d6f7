"""The list of runs: its first page, and from there all runs, page by page.

Blocking, and on asyncio. A page is asked for when a loop comes to it, so that a long list costs no memory.
"""

from collections.abc import AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING, Any

from runglass.client.core.requests import RequestSpec, following_page
from runglass.log.trace import RunSummary
from runglass.wire.run_api import RunPage

if TYPE_CHECKING:  # for names alone: the transports load the HTTP library
    from runglass.client.transport.blocking import SyncTransport
    from runglass.client.transport.on_asyncio import AsyncTransport


# `dict` holds the transport and the call for the next page: a field would be part of the page's JSON.
class RunPages(RunPage, frozen=True, kw_only=True, rename="camel", dict=True, eq=False):
    """A page of runs, newest first. `next_cursor` is None on the last page.

    A loop over it yields the runs of this page, then those of all pages that follow, each fetched when the
    loop comes to it.
    """

    @classmethod
    def starting(
        cls, transport: "SyncTransport", call: RequestSpec[RunPage], *, timeout: float | None
    ) -> "RunPages":
        """The page that `call` asks for. Raises as the transport does."""
        first = transport.call(call, timeout=timeout)
        pages = cls(runs=first.runs, next_cursor=first.next_cursor, last_change=first.last_change)
        pages.__dict__["_way_on"] = (transport, call, timeout)
        return pages

    def __iter__(self) -> Iterator[RunSummary]:
        transport, call, timeout = self.__dict__["_way_on"]
        page: RunPage = self
        while True:
            yield from page.runs
            if page.next_cursor is None:
                return
            page = transport.call(following_page(call, page.next_cursor), timeout=timeout)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RunPage):
            return NotImplemented
        return (self.runs, self.next_cursor) == (other.runs, other.next_cursor)

    __hash__ = None  # type: ignore[assignment]  # as of every page: it holds a list


class AsyncRunPages:
    """Runs, newest first: awaited it is a RunPage, and `async for` yields the runs of all pages.

    No request is made before one or the other.
    """

    def __init__(
        self, transport: "AsyncTransport", call: RequestSpec[RunPage], *, timeout: float | None
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
