"""Admits large requests, one at a time for each project, from their bytes to the start of their run.

Decoded they take twenty times their bytes, so many at once would fill the memory before the first of them is
counted as a run. The bodies that wait for their turn are limited, too: the limits of connections do not hold
for a caller that sends a body and leaves.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from runglass.engine.scheduling.fair_share import FairTurns, Shares
from runglass.engine.scheduling.offloading import LARGE_BYTES
from runglass.server.api_request import ApiRequest
from runglass.server.requests.body import HeldBodies
from runglass.server.security.revocation import while_allowed

AT_ONCE = 8
"""The most projects that have a request admitted at the same time."""


class RequestAdmission:
    """The admission of one server, whose waiting requests count among its `bodies`."""

    def __init__(self, bodies: HeldBodies) -> None:
        self._bodies = bodies
        self._turns = FairTurns(Shares(1, most=AT_ONCE, most_each=1))

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
        with self._bodies.receiving(project_id) as received:
            received(size_bytes)
            async with AsyncExitStack() as turn:
                entering = turn.enter_async_context(self._turns.turn(project_id))
                await while_allowed(request, None, entering, otherwise="nothing was started")
                yield turn
