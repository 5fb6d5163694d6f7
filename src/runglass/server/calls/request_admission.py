"""Admits large requests, one at a time for each project, from their bytes to the start of their run.

Decoded they take twenty times their bytes, so many at once would fill the memory before the first of them is
counted as a run. The bodies that wait for their turn are limited, too: the limits of connections do not hold
for a caller that sends a body and leaves.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

from runglass.engine.scheduling.fair_share import FairTurns, Shares
from runglass.engine.scheduling.offloading import LARGE_BYTES
from runglass.errors import api_error
from runglass.server.api_request import ApiRequest
from runglass.server.security.revocation import while_allowed

AT_ONCE = 8
"""The most projects that have a request admitted at the same time."""
SHARE = 4
"""All bodies together may fill a quarter of `memory_limit_bytes`, those of one project half of that.

Where that is full, each project with bodies has an equal share of it, and may always have one body.
"""


class RequestAdmission:
    """The admission of one server; `memory_limit_bytes` is the limit for its runs."""

    def __init__(self, memory_limit_bytes: int) -> None:
        self._limit_bytes = memory_limit_bytes
        self._most_bytes = memory_limit_bytes // SHARE
        self._turns = FairTurns(Shares(1, most=AT_ONCE, most_each=1))
        self._held: Counter[int] = Counter()

    @asynccontextmanager
    async def turn(self, request: ApiRequest, size_bytes: int) -> AsyncIterator[AsyncExitStack]:
        """The turn of a request with so many bytes, which is decoded, checked and started in the block.

        The turn may be closed before; the bytes of the request are counted until the block ends.
        Raises UNAVAILABLE where too many bytes wait, except for a project without other bodies, and where the
        server stops; UNAUTHENTICATED where the key is revoked meanwhile.
        """
        if size_bytes <= LARGE_BYTES:
            yield AsyncExitStack()
            return
        project_id = request.auth.project_id
        self._require_room(project_id, size_bytes)
        self._held[project_id] += size_bytes
        try:
            async with AsyncExitStack() as turn:
                entering = turn.enter_async_context(self._turns.turn(project_id))
                await while_allowed(request, None, entering, otherwise="nothing was started")
                yield turn
        finally:
            self._release(project_id, size_bytes)

    @contextmanager
    def receiving(self, project_id: int) -> Iterator[Callable[[int], None]]:
        """Counts a body that is received in the block; the function that it gives takes the bytes so far.

        The function raises UNAVAILABLE where too many bytes come in and wait, except for a project without
        other bodies.
        """
        counted = 0

        def received(size_bytes: int) -> None:
            nonlocal counted
            if size_bytes > LARGE_BYTES:
                self._require_room(project_id, size_bytes - counted, own_bytes=counted)
                self._held[project_id] += size_bytes - counted
                counted = size_bytes

        try:
            yield received
        finally:
            self._release(project_id, counted)

    def _release(self, project_id: int, size_bytes: int) -> None:
        self._held[project_id] -= size_bytes
        if not self._held[project_id]:
            del self._held[project_id]

    def _require_room(self, project_id: int, size_bytes: int, *, own_bytes: int = 0) -> None:
        held, total = self._held[project_id], self._held.total()
        if held == own_bytes:
            # Each project may have one body, however many others wait.
            return
        share = self._most_bytes // max(2, len(self._held))
        most = self._most_bytes // 2 if total + size_bytes <= self._most_bytes else share
        if held + size_bytes > most:
            raise api_error(
                "UNAVAILABLE",
                f"large requests of this project of {held:,} bytes come in or wait to be read, and there is"
                f" no room for {size_bytes:,} more; they may have {most:,} (a part of the setting"
                f" memory_limit_bytes, {self._limit_bytes:,}); nothing was started, try again later",
                details={"limit": "memory_limit_bytes", "value": self._limit_bytes},
            )
