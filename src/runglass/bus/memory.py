"""Wake-ups within one process and one event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class MemoryListener:
    """A flag that a wake-up raises and a return from `wait` lowers."""

    def __init__(self) -> None:
        self._raised = asyncio.Event()

    def wake(self) -> None:
        self._raised.set()

    async def wait(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._raised.wait()
        except TimeoutError:
            return
        self._raised.clear()


class MemoryBus:
    """The bus of a single process."""

    fault: str | None = None

    def __init__(self) -> None:
        self._listeners: dict[str, set[MemoryListener]] = {}

    @property
    def subjects(self) -> int:
        """How many subjects have listeners."""
        return len(self._listeners)

    async def wake(self, subject: str) -> None:
        self.wake_here(subject)

    def wake_here(self, subject: str) -> None:
        """`wake`, for callbacks."""
        for listener in self._listeners.get(subject, ()):
            listener.wake()

    def wake_all(self) -> None:
        """Wakes every listener of every subject."""
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.wake()

    @asynccontextmanager
    async def listen(self, subject: str) -> AsyncIterator[MemoryListener]:
        listener = MemoryListener()
        listeners = self._listeners.setdefault(subject, set())
        listeners.add(listener)
        try:
            yield listener
        finally:
            listeners.discard(listener)
            # Only the set that is still registered: another listener may have come and gone meanwhile.
            if not listeners and self._listeners.get(subject) is listeners:
                del self._listeners[subject]
