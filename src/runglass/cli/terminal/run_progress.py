"""What goes on in a run, fed with its events: which of them stay on the screen, and the steps that are open.

`RunProgress` is pure: no terminal, no clock. Its memory is bounded by the steps of the flow and those that
run at one time.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.live import Live
from rich.text import Text

from runglass.cli.terminal import formatting
from runglass.cli.terminal.event_lines import PASSING, EventLines
from runglass.cli.terminal.output import can_repaint, one_line, write_line
from runglass.log.events import (
    StepEvent,
    StepPaused,
    StepPausedForToolCalls,
    StepProgress,
    StepRetrying,
    StepSkipped,
    StepStarted,
    StreamEvent,
)
from runglass.log.fold import RunFold
from runglass.log.trace import RunSummary, StepTrace

MOST_LINES = 12
MOST_OF_A_STEP = 10
"""So many lines about a step in a loop stay for each kind of event; further ones are counted."""
TEXT_CHARS = 60
FRAMES_PER_S = 10

Address = tuple[str, tuple[int, ...] | None]


@contextmanager
def following(console: Console) -> Iterator[Callable[[StreamEvent], None]]:
    """Shows the events of a run that it is given: finished steps stay, and below them is what goes on.

    Where nothing can be painted over there is only what stays.
    """
    progress, lock = RunProgress(), threading.Lock()

    def painted() -> Text:
        # With its last cell full, a line would count as two in some terminals.
        width, most = console.width - 1, min(MOST_LINES, max(console.height - 2, 1))
        with lock:
            return Text("\n").join(progress.lines(now=datetime.now(UTC), width=width, most=most))

    def show(event: StreamEvent) -> None:
        with lock:
            lines = progress.add(event)
        for line in lines:
            write_line(console, line)

    live = Live(
        console=console,
        get_renderable=painted,
        refresh_per_second=FRAMES_PER_S,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with live if can_repaint(console) else nullcontext():
        yield show


class RunProgress:
    """The state of one run, after the events that it was given with `add`, in order."""

    def __init__(self) -> None:
        self._fold = RunFold(RunSummary(id="", flow_id="", status="pending"))
        self._lines = EventLines()
        self._started: datetime | None = None
        self._line_counts: Counter[tuple[str, str]] = Counter()
        self._retries: dict[Address, tuple[StepRetrying, datetime]] = {}
        """Failed attempts, and when the next one begins."""
        self._texts: dict[Address, str] = {}
        self._waits_for = ""

    def add(self, event: StreamEvent) -> list[Text]:
        """Takes an event in; the lines that stay on the screen because of it."""
        self._fold.apply(event)
        at = formatting.moment(event.at)
        self._started = self._started or at
        if isinstance(event, StepEvent):
            address = (event.step_id, event.loop_path)
            if isinstance(event, StepProgress):
                self._texts[address] = (self._texts.get(address, "") + event.text)[-2 * TEXT_CHARS :]
            elif not isinstance(event, PASSING) or isinstance(event, StepStarted):
                self._texts.pop(address, None)
            if isinstance(event, StepRetrying) and at is not None:
                self._retries[address] = event, at + timedelta(milliseconds=event.delay_ms)
            elif isinstance(event, StepStarted | StepSkipped):
                self._retries.pop(address, None)
        if isinstance(event, StepPausedForToolCalls):
            self._waits_for = formatting.awaited(event.tool_calls, limit=100)
        elif isinstance(event, StepPaused):
            self._waits_for = "waiting for the next call of the step-through"
        return [] if isinstance(event, PASSING) else list(self._staying(event))

    def lines(self, *, now: datetime, width: int, most: int = MOST_LINES) -> Sequence[Text]:
        """What goes on at a moment: at most so many lines of at most so many cells; none before the start."""
        if self._started is None:
            return []
        steps = [step for _, step in self._fold.open_steps]
        room = most - 1 if len(steps) < most else max(most - 2, 0)
        lines = [self._head(now, self._started), *(self._step(step, now) for step in steps[:room])]
        if len(steps) > room:
            lines.append(Text(f"  … and {formatting.counted(len(steps) - room, 'more step')}", "dim"))
        elif not steps and self._fold.status == "paused":
            lines.append(Text(f"  ‖ {self._waits_for}", "yellow"))
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        return lines[:most]

    def _head(self, now: datetime, started: datetime) -> Text:
        run = self._fold.summary
        mark, style = formatting.mark("paused" if run.status == "paused" else "running")
        head = Text.assemble((f"{mark} ", style), (one_line(formatting.flow(run), limit=64), "bold"))
        head.append(f"  {_since(started, now)}")
        if run.totals is not None:
            head.append(f"  steps {formatting.steps(run)}")
            if run.totals.failed > run.totals.cancelled:
                head.append(f"  {run.totals.failed - run.totals.cancelled:,} failed", "red")
            if run.totals.tokens is not None:
                head.append(f"  {formatting.counted(run.totals.tokens.total, 'token')}")
            if run.totals.cost_usd is not None:
                head.append(f"  {formatting.least_money(run.totals)}")
        return head

    def _step(self, step: StepTrace, now: datetime) -> Text:
        """A step that is open, how long it has been, and why it waits or what its model has said so far."""
        address = (step.step_id, step.loop_path)
        status, about = "running", f"attempt {step.attempt}  " if step.attempt > 1 else ""
        if (retry := self._retries.get(address)) is not None:
            event, due = retry
            status, when = "retried", f"in {_since(now, due)}" if due > now else "begins"
            about = f"attempt {event.next_attempt} {when}: {formatting.error_text(event.error)}"
        elif self._fold.status == "paused":
            status, about = "waiting", self._waits_for
        elif text := one_line(self._texts.get(address, ""), limit=2 * TEXT_CHARS):
            about += f"…{text[-TEXT_CHARS:]}"
        mark, style = formatting.mark(status)
        line = Text.assemble((f"  {mark} ", style), (formatting.step_name(step), "bold"))
        if (started := formatting.moment(step.started_at)) is not None:
            line.append(f"  {_since(started, now)}")
        return line.append(f"  {one_line(about)}", "dim" if status == "running" else "yellow")

    def _staying(self, event: StreamEvent) -> Iterator[Text]:
        count = 0
        if isinstance(event, StepEvent) and event.loop_path:
            kind = (event.step_id, event.event_type)
            self._line_counts[kind] += 1
            count = self._line_counts[kind]
            if count > MOST_OF_A_STEP:
                return
        yield self._lines.line(event)
        if isinstance(event, StepEvent) and count == MOST_OF_A_STEP:
            what, step = event.event_type.rpartition("_")[2], one_line(event.step_id, limit=64)
            yield Text(f"{'':>12}… further ones of {step} ({what}) are counted", "dim")


def _since(then: datetime, now: datetime) -> str:
    # Tenths, as the line changes ten times a second.
    seconds = max((now - then).total_seconds(), 0)
    return f"{seconds:.1f} s" if seconds < 60 else formatting.duration(round(seconds) * 1000)
