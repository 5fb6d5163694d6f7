"""The bus carries wake-ups, not truth: losing or repeating one costs a moment, never an event.

Who waits first listens, then reads the store, then waits here for the next reason to read again. A wake-up
has a subject and nothing else: the id of a run, or one of the names below.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

WORK = "work"
"""Woken when a run waits in the queue that any process may claim."""


def runs_of(project_id: int) -> str:
    """What is woken when a run of the project is created or changes its status."""
    return f"runs of {project_id}"


def progress_of(run_id: str) -> str:
    """What is woken when a run that waited begins, and when any has ended or paused."""
    return f"progress of {run_id}"


def requests_to(name: str) -> str:
    """What is woken when the store holds a request, such as a cancel, to the process or run of that name."""
    return f"requests to {name}"


class Listener:
    """One who waits for wake-ups of one subject: a flag that these raise and a return from `wait` lowers."""

    def __init__(self) -> None:
        self._raised = asyncio.Event()

    def wake(self) -> None:
        self._raised.set()

    async def wait(self, timeout_s: float) -> None:
        """Returns after a wake-up that came since the last return, or after `timeout_s` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._raised.wait()
        except TimeoutError:
            return
        self._raised.clear()


class Bus:
    """Wake-ups by subject. Any text is a subject; one that is not well-formed Unicode, too.

    This one is of a single process.
    """

    fault: str | None = None
    """Why wake-ups of other processes do not come at the moment, without secrets; None if they do."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[Listener]] = {}

    @property
    def subjects(self) -> int:
        """How many subjects have listeners."""
        return len(self._listeners)

    async def wake(self, subject: str) -> None:
        """Tells all listeners of the subject that the store holds something new. Call after the commit.

        Listeners in this process hear it before the return, others soon. Never waits for the network, and
        raises nothing where the bus is away: others then look by themselves.
        """
        self.wake_here(subject)

    def wake_here(self, subject: str) -> None:
        """`wake` for this process alone, and for callbacks."""
        for listener in self._listeners.get(subject, ()):
            listener.wake()

    def wake_all(self) -> None:
        """Wakes every listener of every subject."""
        for subject in self._listeners:
            self.wake_here(subject)

    @asynccontextmanager
    async def listen(self, subject: str) -> AsyncIterator[Listener]:
        """A listener that hears each wake-up from now on, until the block ends.

        It may also be woken for no reason, as after the bus was away.
        """
        listener = Listener()
        listeners = self._listeners.setdefault(subject, set())
        listeners.add(listener)
        try:
            yield listener
        finally:
            listeners.discard(listener)
            # Only the set that is still registered: another listener may have come and gone meanwhile.
            if not listeners and self._listeners.get(subject) is listeners:
                del self._listeners[subject]
