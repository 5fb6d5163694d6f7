"""The line of those that wait for a place among the runs that go on at once, in the order of their coming.

New runs wait in the store as `pending`, and here is only who waits for them. A paused run that is taken up
again waits as its caller does: until it has a place it is still paused.
"""

import asyncio
from collections.abc import MutableMapping
from itertools import islice

from runglass.engine.going import Outcome
from runglass.errors import APIError, api_error

Begun = asyncio.Task[Outcome]


class Queued:
    """A new run in the line. `begun` will be its task, or why there is none; `outputs` is its caller's."""

    def __init__(self, order: int, outputs: MutableMapping[int, bytes] | None) -> None:
        self.order = order
        self.outputs = outputs
        self.stored_before: int | None = None
        self.begun: asyncio.Future[Begun] = asyncio.get_running_loop().create_future()

    async def outcome(self) -> Outcome:
        """How the run ends, once it has begun."""
        return await asyncio.shield(await asyncio.shield(self.begun))

    def fail(self, error: Exception) -> None:
        """Tells who waits that the run does not begin here."""
        if not self.begun.done():
            self.begun.set_exception(error)
            # Nobody waits for a job: that its failure is not heard of is no fault.
            self.begun.exception()


class Places:
    """So many `places`, and a line of at most `most_waiting`.

    `backlog` is about how many runs wait in the store that this process has not put there, as after a crash.
    """

    def __init__(self, *, places: int, most_waiting: int) -> None:
        self.backlog = 0
        self.claims = 0
        self.held = 0
        """Places of runs that go on, and of those that are about to."""
        self._places = places
        self._most_waiting = most_waiting
        self._order = 0
        self._queued: dict[str, Queued] = {}
        self._resuming: dict[int, asyncio.Future[None]] = {}

    @property
    def room(self) -> int:
        """How many places are free."""
        return max(0, self._places - self.held)

    @property
    def waiting(self) -> int:
        """How many there are in the line."""
        return self.backlog + len(self._queued) + len(self._resuming)

    def take(self) -> bool:
        """Takes a place for one who has just come; False where there is none, or others came before."""
        if self.waiting or not self.room:
            return False
        self.held += 1
        return True

    def give_back(self) -> None:
        self.held -= 1

    def queue(self, run_id: str, outputs: MutableMapping[int, bytes] | None) -> Queued:
        """Puts a new run in the line. Raises UNAVAILABLE where that is full."""
        queued = self._queued[run_id] = Queued(self._next(), outputs)
        return queued

    def stored(self, queued: Queued) -> None:
        """From now on the run can be claimed."""
        queued.stored_before = self.claims

    def leave(self, run_id: str, error: Exception | None = None) -> Queued | None:
        """Takes a run out of the line, and tells who waits for it where that is an `error`."""
        queued = self._queued.pop(run_id, None)
        if queued is not None and error is not None:
            queued.fail(error)
        return queued

    async def resume(self) -> None:
        """Returns when the one who asks has a place, in its turn. Raises UNAVAILABLE for a full line."""
        if self.take():
            return
        order = self._next()
        granted = self._resuming[order] = asyncio.get_running_loop().create_future()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self.give_back()
            raise
        finally:
            self._resuming.pop(order, None)

    def claimable(self, most: int) -> int:
        """How many runs of the store are next in the line, `most` at most; hands out places on the way."""
        while self.room:
            order, granted = next(iter(self._resuming.items()), (None, None))
            ahead = self.backlog or granted is None
            if order is None or granted is None or ahead:
                return min(most, self.room)
            before = sum(each.order < order for each in islice(self._queued.values(), most))
            if before:
                return min(most, self.room, before)
            del self._resuming[order]
            self.held += 1
            granted.set_result(None)
        return 0

    def knows(self, run_id: str) -> bool:
        """Whether the run is in the line by a call to this process."""
        return run_id in self._queued

    def missing(self, claim: int) -> list[str]:
        """The runs that were to be found by the claim of this number, if nobody else has taken them."""
        return [
            run_id
            for run_id, queued in self._queued.items()
            if queued.stored_before is not None and queued.stored_before < claim
        ]

    def close(self, error: Exception, refusal: APIError) -> None:
        """Tells everybody in the line that nothing begins any more."""
        for run_id in list(self._queued):
            self.leave(run_id, error)
        for granted in self._resuming.values():
            if not granted.done():
                granted.set_exception(refusal)

    def _next(self) -> int:
        if self.waiting >= self._most_waiting:
            raise api_error(
                "UNAVAILABLE",
                f"{self.held:,} runs go on and {self.waiting:,} wait, as many as this server takes;"
                " nothing was started, try again later",
            )
        self._order += 1
        return self._order
