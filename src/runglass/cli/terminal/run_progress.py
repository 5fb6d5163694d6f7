"""What goes on in a run, fed with its events: which of them stay on the screen, and the lines that change.

Pure: no terminal, no clock. Memory is bounded by the steps of the flow and those that run at one time.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from runglass.cli.terminal import formatting
from runglass.cli.terminal.event_lines import PASSING, EventLines
from runglass.cli.terminal.output import one_line
from runglass.errors import is_cancellation
from runglass.log.events import (
    LoopCompleted,
    LoopStarted,
    StepCompleted,
    StepError,
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

MOST_LINES = 10
MOST_OF_A_STEP = 10
"""So many lines about a step in a loop stay for each kind of event; further ones are counted."""
MOST_NAMED = 4
TEXT_CHARS = 200
BAR_CELLS = 10
NARROW = 60

Address = tuple[str, tuple[int, ...] | None]


class Retry(NamedTuple):
    """A failed attempt, and when the next one begins."""

    next_attempt: int
    due: datetime | None
    error: str


class Loop:
    """A loop that goes on. `step_index` is that of the top-level step that it is or is in, once known."""

    def __init__(self, started: LoopStarted) -> None:
        self.iterations = started.iterations
        self.iterations_begun = 0
        self.step_index: int | None = None
        self._step_ids = frozenset(started.step_ids)

    def begin(self, event: StepStarted | StepSkipped) -> bool:
        """Counts the iteration that an event is of; whether it is inside of the loop."""
        if event.step_id not in self._step_ids or not event.loop_path:
            return False
        # Iterations begin in the order of their numbers.
        self.iterations_begun = max(self.iterations_begun, event.loop_path[0] + 1)
        return True


class RunProgress:
    """The state of one run, after the events that it was given with `add`, in order."""

    def __init__(self) -> None:
        self._fold = RunFold(RunSummary(id="", flow_id="", status="pending"))
        self._lines = EventLines()
        self._loops: dict[str, Loop] = {}
        """Those inside of no other loop, in the order in which they began."""
        self._started: datetime | None = None
        self._last: datetime | None = None
        self._ended: dict[str, Counter[str]] = defaultdict(Counter)
        self._line_counts: Counter[tuple[str, str]] = Counter()
        self._retries: dict[Address, Retry] = {}
        self._texts: dict[Address, str] = {}
        self._seen: set[str] = set()
        self._waits_for = ""

    def add(self, event: StreamEvent) -> Iterator[Text]:
        """Takes an event in; the lines that stay on the screen because of it."""
        self._fold.apply(event)
        at = formatting.moment(event.at)
        self._started = self._started or at
        self._last = at or self._last
        if isinstance(event, StepEvent):
            self._add_to_step(event, at)
        elif isinstance(event, StepPaused | StepPausedForToolCalls):
            self._waits_for = _waits_for(event)
        if not isinstance(event, PASSING):
            yield from self._staying(event)

    def lines(self, *, now: datetime, width: int, most: int = MOST_LINES) -> Sequence[Text]:
        """What goes on at a moment: at most so many lines of at most so many cells."""
        is_narrow = width < NARROW
        steps = [*self._loop_lines(is_narrow=is_narrow), *self._step_lines(now)]
        room = max(most - 1, 0)
        if len(steps) > room:
            hidden = len(steps) - max(room - 1, 0)
            steps = [
                *steps[: max(room - 1, 0)],
                Text(f"  … and {formatting.counted(hidden, 'step')} more", "dim"),
            ]
        lines = [self._head(now, is_narrow=is_narrow), *steps][:most]
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        return lines

    def _add_to_step(self, event: StepEvent, at: datetime | None) -> None:
        address = (event.step_id, event.loop_path)
        match event:
            case LoopStarted(loop_path=None):
                self._loops[event.step_id] = Loop(event)
            case LoopCompleted(loop_path=None):
                self._loops.pop(event.step_id, None)
            case StepProgress():
                self._texts[address] = (self._texts.get(address, "") + event.text)[-TEXT_CHARS:]
                return
            case StepRetrying():
                due = None if at is None else at + timedelta(milliseconds=event.delay_ms)
                self._retries[address] = Retry(event.next_attempt, due, formatting.error_text(event.error))
                self._ended[event.step_id]["retried"] += 1
            case StepStarted():
                self._seen.add(event.step_id)
                self._retries.pop(address, None)
                # No event says that a loop failed and the run goes on behind it.
                self._loops = {
                    step_id: loop
                    for step_id, loop in self._loops.items()
                    if loop.step_index in (None, event.step_index)
                }
                for loop in self._loops.values():
                    if loop.begin(event):
                        loop.step_index = event.step_index
            case StepCompleted():
                self._ended[event.step_id]["done"] += 1
            case StepError():
                how = "cut off" if is_cancellation(event.error) else "failed"
                self._ended[event.step_id][how] += 1
            case StepSkipped():
                self._seen.add(event.step_id)
                self._ended[event.step_id]["skipped"] += 1
                for loop in self._loops.values():
                    loop.begin(event)
        if not isinstance(event, PASSING) or isinstance(event, StepStarted):
            self._texts.pop(address, None)

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

    def _head(self, now: datetime, *, is_narrow: bool) -> Text:
        run = self._fold.summary
        mark, style = formatting.mark("paused" if run.status == "paused" else "running")
        head = Text.assemble((f"{mark} ", style), (one_line(formatting.flow(run), limit=64), "bold"))
        if run.step_count:
            seen = min(len(self._seen), run.step_count)
            head.append("  ")
            if not is_narrow:
                head.append_text(_bar(seen, run.step_count))
            head.append(f"{seen}/{run.step_count} steps begun")
        if self._started is not None:
            head.append(f"  {_since(self._started, now)}")
        totals = run.totals
        if totals is not None:
            for number, what in (
                (totals.completed, "done"),
                (totals.retried, "retried"),
                (totals.failed - totals.cancelled, "failed"),
            ):
                if number:
                    head.append(f"  {number:,} {what}", "red" if what == "failed" else "")
            if totals.tokens is not None:
                head.append(f"  {formatting.counted(totals.tokens.total, 'token')}")
            if totals.cost_usd is not None:
                head.append(f"  {formatting.least_money(totals)}")
        return head

    def _loop_lines(self, *, is_narrow: bool) -> Iterator[Text]:
        """A line for each loop that goes on inside of no other one."""
        for step_id, loop in self._loops.items():
            line = Text.assemble(("  ⟳ ", "cyan"), one_line(step_id, limit=40), "  ")
            if not is_narrow:
                line.append_text(_bar(loop.iterations_begun, loop.iterations))
            line.append(
                f"{loop.iterations_begun:,} of {formatting.counted(loop.iterations, 'iteration')} begun"
            )
            yield line

    def _step_lines(self, now: datetime) -> Iterator[Text]:
        """A line for each step that goes on; iterations of one step are one line."""
        by_step: dict[str, list[StepTrace]] = {}
        for change in self._fold.open_steps:
            by_step.setdefault(change.step.step_id, []).append(change.step)
        if self._fold.status == "paused" and not by_step:
            yield Text(f"  ‖ {self._waits_for}", "yellow")
        labels = {step_id: one_line(step_id, limit=40) for step_id in by_step}
        width = max(map(cell_len, labels.values()), default=0)
        for step_id, steps in by_step.items():
            label = set_cell_size(labels[step_id], width)
            if len(steps) == 1 and steps[0].loop_path is None:
                yield self._one_line(label, steps[0], now)
            else:
                yield self._folded_line(label, steps, now)

    def _one_line(self, label: str, step: StepTrace, now: datetime) -> Text:
        address = (step.step_id, step.loop_path)
        retry = self._retries.get(address)
        if retry is not None:
            return Text(f"  ↻ {label}  {_next_attempt(retry, now)}: {one_line(retry.error)}", "yellow")
        is_waiting = self._fold.status == "paused"
        line = Text.assemble(("  ‖ " if is_waiting else "  ▷ ", "yellow" if is_waiting else "cyan"), label)
        if is_waiting:
            line.append(f"  {self._waits_for}", "yellow")
        if step.attempt > 1:
            line.append(f"  attempt {step.attempt}", "yellow")
        started = formatting.moment(step.started_at)
        if started is not None:
            line.append(f"  {_since(started, now)}")
        if step.tokens is not None:
            line.append(f"  {formatting.counted(step.tokens.total, 'token')}")
        if step.model_used is not None:
            line.append(f"  {one_line(step.model_used, limit=40)}", "dim")
        if text := self._texts.get(address):
            line.append(f"  …{one_line(text, limit=TEXT_CHARS)[-60:]}", "dim")
        return line

    def _folded_line(self, label: str, steps: Sequence[StepTrace], now: datetime) -> Text:
        running = [step for step in steps if (step.step_id, step.loop_path) not in self._retries]
        waiting = len(steps) - len(running)
        named = " ".join(f"[{formatting.iteration(step)}]" for step in running[:MOST_NAMED])
        more = " …" if len(running) > MOST_NAMED else ""
        line = Text.assemble(("  ▷ " if running else "  ↻ ", "cyan" if running else "yellow"), label)
        for what, number in self._ended[steps[0].step_id].items():
            style = {"failed": "red", "retried": "yellow"}.get(what, "")
            line.append(f"  {number:,} {what}", style)
        if running:
            oldest = min((at for step in running if (at := formatting.moment(step.started_at))), default=None)
            since = "" if oldest is None else f" {_since(oldest, now)}"
            line.append(f"  {len(running):,} running{since}  {named}{more}")
        if waiting:
            retries = [self._retries[step.step_id, step.loop_path] for step in steps if step not in running]
            due = min((retry for retry in retries if retry.due), key=lambda it: it.due or now, default=None)
            first = "" if due is None else f", {_next_attempt(due, now)}"
            line.append(f"  {formatting.counted(waiting, 'attempt')} to come{first}", "yellow")
        return line


def _bar(done: int, total: int) -> Text:
    filled = min(done, total) * BAR_CELLS // total if total else BAR_CELLS
    return Text.assemble(("█" * filled, "cyan"), ("░" * (BAR_CELLS - filled) + " ", "dim"))


def _since(then: datetime, now: datetime) -> str:
    # Tenths, as the line changes ten times a second.
    seconds = max((now - then).total_seconds(), 0)
    return f"{seconds:.1f} s" if seconds < 60 else formatting.duration(round(seconds) * 1000)


def _next_attempt(retry: Retry, now: datetime) -> str:
    if retry.due is None or retry.due <= now:
        return f"attempt {retry.next_attempt} begins"
    return f"attempt {retry.next_attempt} in {_since(now, retry.due)}"


def _waits_for(event: StepPaused | StepPausedForToolCalls) -> str:
    if isinstance(event, StepPaused):
        after = "" if event.step_id is None else f"after {one_line(event.step_id, limit=64)}: "
        return f"{after}waiting for the next call of the step-through"
    return formatting.awaited(event.tool_calls, limit=100)
