"""The bus carries wake-ups, not truth: losing or repeating one costs a moment, never an event.

A tail first listens, then reads the store, then waits here for the next reason to read again.
"""

from contextlib import AbstractAsyncContextManager
from typing import Protocol


def runs_of(project_id: int) -> str:
    """What is woken, in place of a run's id, when a run of the project is created or changes its status."""
    return f"runs of {project_id}"


class Listener(Protocol):
    """One waiting reader of one run, or of the runs of a project."""

    async def wait(self, timeout_s: float) -> None:
        """Returns after a wake-up that came since the last return, or after `timeout_s` seconds."""


class Bus(Protocol):
    """Wake-ups by run id, and by `runs_of` a project."""

    async def wake(self, run_id: str) -> None:
        """Tells all listeners of the run that the store holds something new. Call after the commit."""

    def listen(self, run_id: str) -> AbstractAsyncContextManager[Listener]:
        """A listener that hears each wake-up from now on, until the block ends."""
