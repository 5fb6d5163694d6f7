"""The demo's live view: each event of the run is shown on a line or counted, however many there are."""

from collections import Counter

from rich.console import Console

from runglass.cli.terminal.event_lines import EventLines
from runglass.cli.terminal.output import write_line
from runglass.log.events import (
    StepCompleted,
    StepInput,
    StepModelCall,
    StepModelReserved,
    StepOutput,
    StepProgress,
    StepSkipped,
    StepStarted,
    StreamEvent,
)

MOST_LINES = 90
"""After this many lines, events of success inside a loop are only counted."""

SIGN_OF_LIFE = 500
"""Counted events between two lines that tell their number."""


class LiveView:
    """Writes the events of one run to `console`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lines = EventLines()
        self._shown = 0
        self._counted: Counter[str] = Counter()

    def add(self, event: StreamEvent) -> None:
        """Shows or counts the event."""
        line = self._lines.line(event)
        if self._is_shown(event):
            self._shown += 1
            write_line(self._console, line)
            return
        self._counted[event.event_type] += 1
        if self._counted.total() % SIGN_OF_LIFE == 0:
            write_line(self._console, f"            … {self._counted.total():,} more events", style="dim")

    def close(self) -> None:
        """Writes the numbers of events that were shown, and of those counted, by type."""
        total = self._shown + self._counted.total()
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in self._counted.most_common())
        text = f"{total:,} events: {self._shown:,} shown" + (f", counted {kinds}" if kinds else "")
        write_line(self._console, f"            {text}", style="dim")

    def _is_shown(self, event: StreamEvent) -> bool:
        if isinstance(event, (StepInput, StepProgress, StepModelReserved, StepModelCall, StepOutput)):
            return False
        if isinstance(event, StepStarted):
            # The end of the step, with its duration, has a line of its own.
            return event.attempt > 1
        if isinstance(event, (StepCompleted, StepSkipped)):
            return event.loop_path is None or self._shown < MOST_LINES
        return True
