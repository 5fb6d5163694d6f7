"""The one budget of bytes of a process: what runs hold, what is being decoded, and bodies that come in.

What runs hold may be evicted, as the store has it, too. Where that does not do, more is refused, by the
shares of projects; what is only decoded for a moment waits for its turn. Knows neither runs nor requests.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Protocol

from runglass.config.settings import Settings
from runglass.errors import APIError, api_error
from runglass.limits.offload import LARGE_BYTES
from runglass.limits.pace import current_project
from runglass.limits.shares import FairTurns, Shares

COUNTED_BYTES = 16 * 1024
"""What is smaller is not counted."""
OBJECTS_PER_BYTE = 8
"""About how many bytes of Python objects a byte of JSON becomes: texts 1, lists of small objects up to 25."""
BEYOND = 2
"""So many times the limit all projects may hold where one that holds little is let in."""
SHARE = 4
"""All bodies together may fill a quarter of `memory_limit_bytes`; so may a server's outlines."""
SHARE_OF_PROJECT = 8
"""Those of one project may fill an eighth: less where the quarter is full, but always one."""


class Evictable(Protocol):
    """Something that a run holds and the store has as well."""

    def evict(self) -> None:
        """Lets go of it, if nobody needs it at the moment; its size is given back then."""


class MemoryBudget:
    """The memory of a process, `limit_bytes`, of which each run keeps `run_bytes` that can be evicted."""

    def __init__(self, settings: Settings) -> None:
        self.limit_bytes = limit_bytes = settings.memory_limit_bytes
        self.run_bytes = settings.run_memory_bytes
        self.evictable: dict[Evictable, None] = {}
        """The oldest first."""
        self._held = Shares(limit_bytes, most=BEYOND * limit_bytes)
        self._bodies = Shares(limit_bytes // SHARE, most_each=limit_bytes // SHARE_OF_PROJECT)
        self._work = FairTurns(Shares(limit_bytes, most=BEYOND * limit_bytes))

    @property
    def held(self) -> int:
        """Bytes of JSON, and of inputs as objects, that runs hold."""
        return self._held.held

    def has_room(self, size: int, *, project_id: int = 0) -> bool:
        """Whether the project can hold so many bytes more, once all has been evicted that can be.

        One below its equal share of the limit can, though others hold all: up to twice the limit altogether.
        """
        if self.held + size > self.limit_bytes:
            for each in list(self.evictable):
                each.evict()
                if self.held + size <= self.limit_bytes:
                    break
        return self._held.may_take(project_id, size)

    def hold(self, size: int, project_id: int) -> None:
        """Counts bytes of a project; less than 0 takes them back."""
        if size > 0:
            self._held.take(project_id, size)
        elif size:
            self._held.give_back(project_id, size=-size)

    @contextmanager
    def starting(self, request_bytes: int, *, project_id: int = 0) -> Iterator[None]:
        """Inside the block a run with such a request is started. Raises UNAVAILABLE where there is no room.

        One alone is always taken.
        """
        size = request_bytes * OBJECTS_PER_BYTE if request_bytes >= COUNTED_BYTES else 0
        if size and self.held and not self.has_room(size, project_id=project_id):
            raise self._full(
                f"the runs of this server hold {self.held:,} bytes in memory, and there is no room for a"
                f" request of {request_bytes:,}; they may hold {self.limit_bytes:,} (setting"
                " memory_limit_bytes)"
            )
        self.hold(size, project_id)
        try:
            yield
        finally:
            self.hold(-size, project_id)

    @contextmanager
    def receiving(self, project_id: int) -> Iterator[Callable[[int], None]]:
        """Counts a body that is received in the block; the function that it gives takes the bytes so far.

        The function raises UNAVAILABLE where too many bytes come in and wait, except for a project without
        other bodies.
        """
        bodies, counted = self._bodies, 0

        def received(size_bytes: int) -> None:
            nonlocal counted
            more = size_bytes - counted
            if size_bytes <= LARGE_BYTES or not more:
                return
            held = bodies.held_by(project_id)
            if held > counted and not bodies.may_take(project_id, more):
                raise self._full(
                    f"large requests of this project of {held:,} bytes come in or wait to be read, and there"
                    f" is no room for {more:,} more (a part of the setting memory_limit_bytes,"
                    f" {self.limit_bytes:,})"
                )
            bodies.take(project_id, more)
            counted = size_bytes

        try:
            yield received
        finally:
            if counted:
                bodies.give_back(project_id, size=counted)

    @asynccontextmanager
    async def working(self, json_bytes: int) -> AsyncIterator[ExitStack]:
        """Inside the block so much JSON may be decoded; waits while others have too much in work.

        A task that is alone is always let in, and none inside waits for another: there is no deadlock. A task
        that is done before the block ends closes what it gets, which gives the room back at once.
        """
        with ExitStack() as room:
            if json_bytes >= COUNTED_BYTES:
                size = min(json_bytes * OBJECTS_PER_BYTE, self.limit_bytes)
                turn = self._work.turn(current_project.get(), size)
                await self._work.begin(turn)
                room.callback(self._work.end, turn)
            yield room

    def _full(self, why: str) -> APIError:
        details = {"limit": "memory_limit_bytes", "value": self.limit_bytes}
        return api_error("UNAVAILABLE", f"{why}; nothing was started, retry later", details=details)
