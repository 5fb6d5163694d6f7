"""How attempts are held back, and segments ended before their time: by a caller, or as the process stops."""

import asyncio
import contextlib

from runglass.engine.scheduling.run_limits import LimitReached


class StopRequest:
    """Asks a segment that goes on to end as cancelled, or to leave the run to the process that claims it.

    `spent_at` is the step for which there was no credit, and `spent` the message; `limit` is the limit that
    the run has reached. Then the run fails, and all its steps that go on fail with it. `is_behind` is why it
    is left: the store has less of it than it said.
    """

    def __init__(self) -> None:
        self.cancelled: str | None = None
        self.left = False
        self.is_behind = False
        self.spent_at: str | None = None
        self.spent = ""
        self.limit: LimitReached | None = None

    @property
    def requested(self) -> bool:
        return self.left or self.cancelled is not None

    @property
    def is_last_word(self) -> bool:
        """Whether the event that ends the run also ends the attempts that are cut off."""
        return self.cancelled is not None or self.spent_at is not None or self.limit is not None


class DrainGate:
    """Lets attempts begin until it is closed; `inside` of its block are those that go on."""

    def __init__(self) -> None:
        self.inside = 0
        self._closed = False
        self._empty = asyncio.Event()
        self._never = asyncio.Event()

    @property
    def closed(self) -> bool:
        return self._closed

    async def opened(self) -> None:
        """Returns at once; never, but by cancellation, once the gate is closed."""
        if self._closed:
            await self._never.wait()

    def __enter__(self) -> None:
        self.inside += 1

    def __exit__(self, *exc: object) -> None:
        self.inside -= 1
        if self._closed and not self.inside:
            self._empty.set()

    async def close(self, grace_s: float) -> None:
        """Lets no attempt begin any more; returns when none goes on, or after `grace_s` seconds."""
        self._closed = True
        if self.inside:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._empty.wait()
