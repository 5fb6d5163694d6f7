"""The bus carries wake-ups, not truth: losing or repeating one costs a moment, never an event.

Who waits first listens, then reads the store, then waits here for the next reason to read again. A wake-up
has a subject and nothing else: the id of a run, or one of the names below.
"""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

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


class Listener(Protocol):
    """One who waits for wake-ups of one subject."""

    async def wait(self, timeout_s: float) -> None:
        """Returns after a wake-up that came since the last return, or after `timeout_s` seconds."""


class Bus(Protocol):
    """Wake-ups by subject. Any text is a subject; one that is not well-formed Unicode, too."""

    @property
    def fault(self) -> str | None:
        """Why wake-ups of other processes do not come at the moment, without secrets; None if they do."""

    async def wake(self, subject: str) -> None:
        """Tells all listeners of the subject that the store holds something new. Call after the commit.

        Listeners in this process hear it before the return, others soon. Never waits for the network, and
        raises nothing where the bus is away: others then look by themselves.
        """

    def listen(self, subject: str) -> AbstractAsyncContextManager[Listener]:
        """A listener that hears each wake-up from now on, until the block ends.

        It may also be woken for no reason, as after the bus was away.
        """
