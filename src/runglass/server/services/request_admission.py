"""Large requests, taken in one at a time for each project: from their bytes to the start of their run.

Decoded they take twenty times their bytes, so many at once would fill the memory before the first of them is
counted as a run. What waits for its turn is bounded, too: who sends a body and leaves holds no connection.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager

from runglass.engine.scheduling.fair_share import FairTurns, Shares
from runglass.engine.scheduling.offloading import LARGE_BYTES
from runglass.errors import api_error
from runglass.server.api_request import ApiRequest
from runglass.server.security.revocation import while_allowed

AT_ONCE = 8
"""So many projects may have one taken in at the same time."""
SHARE = 4
"""All bodies being taken in may fill a quarter of `memory_limit_bytes`, those of one project half of that.

Where that is full, those of one project its part among those that have some, and one body always.
"""


class Admission:
    """A request that has its turn."""

    def __init__(self, turn: AbstractAsyncContextManager[object] | None) -> None:
        self._turn = turn

    async def admit_next(self) -> None:
        """Ends the turn before the block ends; what the request holds is counted until the block does."""
        turn, self._turn = self._turn, None
        if turn is not None:
            await turn.__aexit__(None, None, None)


class RequestAdmission:
    """Of one server; `memory_limit_bytes` is what its runs may hold."""

    def __init__(self, memory_limit_bytes: int) -> None:
        self._limit_bytes = memory_limit_bytes
        self._most_bytes = memory_limit_bytes // SHARE
        self._turns = FairTurns(Shares(1, most=AT_ONCE, most_each=1))
        self._held: Counter[int] = Counter()

    @asynccontextmanager
    async def turn(self, request: ApiRequest, size_bytes: int) -> AsyncIterator["Admission"]:
        """In the block a request whose body has so many bytes is decoded, checked and started.

        Raises UNAVAILABLE where too much waits, but for a request that is alone, and where the server stops;
        UNAUTHENTICATED where the key is revoked meanwhile.
        """
        if size_bytes <= LARGE_BYTES:
            yield Admission(None)
            return
        project_id = request.auth.project_id
        self._require_room(project_id, size_bytes)
        self._held[project_id] += size_bytes
        try:
            turn = self._turns.turn(project_id)
            await while_allowed(request, None, turn.__aenter__(), otherwise="nothing was started")
            taken = Admission(turn)
            try:
                yield taken
            finally:
                await taken.admit_next()
        finally:
            self._release(project_id, size_bytes)

    @contextmanager
    def receiving(self, project_id: int) -> Iterator[Callable[[int], None]]:
        """In the block a body comes in, and what is given is told how many bytes of it have come so far.

        Raises UNAVAILABLE where too much is coming in and waiting, but for a body that is alone.
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
            # One of each project is taken in whatever others hold.
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


def taking_in_of(request: ApiRequest) -> RequestAdmission:
    """That of the server which has the request."""
    taking_in: RequestAdmission = request.services.taking_in
    return taking_in
