"""The turns of a project's steps at the store, and one reading for many who ask the same.

A loop of a thousand cheap steps at a time is ready as a whole whenever its appends are stored. Done in one
turn, they would hold the event loop for a tenth of a second; and as the loop never rests then, the writer's
thread hardly gets the interpreter, with the appends of all other runs behind its own. So a project has only
so many steps that wait for the store at a time, and its others wait for these. What many ask the store at a
time about one project is read once for all.
"""

import asyncio
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar, cast

Found = TypeVar("Found")

STEPS_AT_A_TIME = 32
"""About 4 ms of steps that do nothing."""


class StoreTurns:
    """The steps of one project: `inside` wait for the store, at most `most` of them, the others in a line."""

    __slots__ = ("__weakref__", "_is_due", "_line", "_most", "inside")

    def __init__(self, most: int = STEPS_AT_A_TIME) -> None:
        self.inside = 0
        self._most = most
        self._line: deque[asyncio.Future[None]] = deque()
        self._is_due = False

    @property
    def is_full(self) -> bool:
        """Whether a step that the store has answered must wait for its turn, before it comes to it again."""
        return self.inside >= self._most or bool(self._line)

    def leave(self) -> bool:
        """A step that was inside waits for the store no more; whether it must wait for its turn now."""
        self.inside -= 1
        if self._line:
            self._let_on_soon()
            return True
        return self.inside >= self._most

    async def turn(self) -> None:
        """Returns when the step may go on."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(future)
        self._let_on_soon()
        await future

    def _let_on_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._let_on)

    def _let_on(self) -> None:
        self._is_due = False
        room = self._most - self.inside
        while self._line and room > 0:
            future = self._line.popleft()
            if not future.done():
                room -= 1
                future.set_result(None)
        # Those that go on need not come to the store again: whether they do is known in the next turn.
        if self._line and self.inside < self._most:
            self._let_on_soon()


class ProjectTurns:
    """The turns of every project that has runs."""

    def __init__(self) -> None:
        self._of: weakref.WeakValueDictionary[int, StoreTurns] = weakref.WeakValueDictionary()
        # Held on to, so that small runs one after the other do not make them anew each time.
        self._newest: StoreTurns | None = None

    def of(self, project_id: int) -> StoreTurns:
        turns = self._of.get(project_id)
        if turns is None:
            turns = self._newest = self._of[project_id] = StoreTurns()
        return turns


class _Reading(Generic[Found]):
    """The readings for one project, one after the other; `found` is what the latest one has found."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.begun = 0
        self.latest = 0
        self.found: Found | None = None


class Readings(Generic[Found]):
    """Readings of what there is of a project. Who asks while it is read shares the next reading."""

    def __init__(self, read: Callable[[int], Awaitable[Found]]) -> None:
        self._read = read
        self._readings: dict[int, _Reading[Found]] = {}

    async def read(self, project_id: int) -> Found:
        """What there is from now on. Raises as the reading does."""
        reading = self._readings.setdefault(project_id, _Reading())
        asked_after = reading.begun
        async with reading.lock:
            if reading.latest <= asked_after:
                reading.begun += 1
                number = reading.begun
                reading.found = await self._read(project_id)
                reading.latest = number
            return cast(Found, reading.found)
