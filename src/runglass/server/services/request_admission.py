"""Admits large requests, one at a time for each project, from their bytes to the start of their run.

Decoded they take twenty times their bytes, so many at once would fill the memory before the first of them is
counted as a run. The bodies that wait for their turn are limited, too: the limits of connections do not hold
for a caller that sends a body and leaves.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from runglass.engine.scheduling.fair_share import FairTurns, Shares
from runglass.engine.scheduling.offloading import LARGE_BYTES
from runglass.server.api_request import ApiRequest
from runglass.server.requests.body import HeldBodies
from runglass.server.security.revocation import while_allowed

AT_ONCE = 8
"""The most projects that have a request admitted at the same time."""


class Admission:
    """The turn of a request."""

    def __init__(self, turn: AbstractAsyncContextManager[object] | None) -> None:
        self._turn = turn

    async def admit_next(self) -> None:
        """Ends the turn before the block ends; the bytes of the request are counted until the block does."""
        turn, self._turn = self._turn, None
        if turn is not None:
            await turn.__aexit__(None, None, None)


class RequestAdmission:
    """The admission of one server, whose waiting requests count among its `bodies`."""

    def __init__(self, bodies: HeldBodies) -> None:
        self._bodies = bodies
        self._turns = FairTurns(Shares(1, most=AT_ONCE, most_each=1))

    @asynccontextmanager
    async def turn(self, request: ApiRequest, size_bytes: int) -> AsyncIterator["Admission"]:
        """The turn of a request with so many bytes, which is decoded, checked and started in the block.

        Raises UNAVAILABLE where too many bytes wait, except for a project without other bodies, and where the
        server stops; UNAUTHENTICATED where the key is revoked meanwhile.
        """
        if size_bytes <= LARGE_BYTES:
            yield Admission(None)
            return
        project_id = request.auth.project_id
        with self._bodies.receiving(project_id) as received:
            received(size_bytes)
            turn = self._turns.turn(project_id)
            await while_allowed(request, None, turn.__aenter__(), otherwise="nothing was started")
            taken = Admission(turn)
            try:
                yield taken
            finally:
                await taken.admit_next()


def admission_of(request: ApiRequest) -> RequestAdmission:
    """The admission of the server that handles the request."""
    return request.services[RequestAdmission]
