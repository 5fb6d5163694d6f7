"""What goes on in a run, fed with its events: which of them stay on the screen, and the tree of what is open.

`RunProgress` is pure: no terminal, no clock. Its memory is bounded by the steps of the flow and those that
run at one time.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec
from rich.console import Console
from rich.text import Text

from runglass.cli.terminal import formatting
from runglass.cli.terminal.event_lines import PASSING, EventLines
from runglass.cli.terminal.outline_rows import OutlineRows, choose_rows, tree_lines
from runglass.cli.terminal.outline_view import outline_lines
from runglass.cli.terminal.output import LiveArea, can_repaint, one_line, repainting, write_line
from runglass.log.events import (
    LoopStarted,
    StepError,
    StepEvent,
    StepPaused,
    StepPausedForToolCalls,
    StepProgress,
    StepRetrying,
    StepSkipped,
    StepStarted,
    StreamEvent,
    is_terminal,
)
from runglass.log.fold import RunFold
from runglass.log.trace import RunSummary
from runglass.outlines.builder import Node, OutlineBuilder
from runglass.outlines.outline import NONE, OutlinePage

MOST_LINES = 12
MOST_OF_A_STEP = 10
"""So many lines about a step in a loop stay for each kind of event; further ones are counted."""
TEXT_CHARS = 200

Address = tuple[str, tuple[int, ...] | None]


@contextmanager
def following(console: Console) -> Iterator[Callable[[StreamEvent], None]]:
    """Shows the events of a run that it is given: finished steps stay, and below them is what goes on.

    Where nothing can be painted over there is only what stays.
    """
    progress = RunProgress()
    if not can_repaint(console):

        def write(event: StreamEvent) -> None:
            for line in progress.add(event):
                write_line(console, line)

        yield write
        return

    def paint() -> None:
        width, height = area.size
        area.paint(progress.lines(now=datetime.now(UTC), width=width, most=min(MOST_LINES, height)))

    def show(event: StreamEvent) -> None:
        with lock:
            for line in progress.add(event):
                if not isinstance(event, StepError) and not is_terminal(event):
                    line.truncate(area.size[0], overflow="ellipsis")
                area.keep(line)
            if area.is_due:
                paint()

    with LiveArea(console) as area, repainting(paint) as lock:
        yield show


class Retry(NamedTuple):
    """A failed attempt, and when the next one begins."""

    next_attempt: int
    due: datetime | None
    error: str


class RunProgress:
    """The state of one run, after the events that it was given with `add`, in order."""

    def __init__(self) -> None:
        self._fold = RunFold(RunSummary(id="", flow_id="", status="pending"))
        self._lines = EventLines()
        self._loops: dict[str, LoopStarted] = {}
        self._begun: Counter[str] = Counter()
        """Iterations that have begun, of loops inside of no other one."""
        self._started: datetime | None = None
        self._line_counts: Counter[tuple[str, str]] = Counter()
        self._retries: dict[Address, Retry] = {}
        self._texts: dict[Address, str] = {}
        self._waits_for = ""

    def add(self, event: StreamEvent) -> list[Text]:
        """Takes an event in; the lines that stay on the screen because of it."""
        self._fold.apply(event)
        at = formatting.moment(event.at)
        self._started = self._started or at
        if isinstance(event, StepEvent):
            self._add_to_step(event, at)
        elif isinstance(event, StepPaused | StepPausedForToolCalls):
            self._waits_for = _waits_for(event)
        return [] if isinstance(event, PASSING) else list(self._staying(event))

    def lines(self, *, now: datetime, width: int, most: int = MOST_LINES) -> Sequence[Text]:
        """What goes on at a moment: at most so many lines of at most so many cells; none before the start."""
        if self._started is None:
            return []
        lines = [self._head(now, self._started)]
        rows = self._open_rows()
        if len(rows) and most > 2:
            now_ms = round((now - self._started) / timedelta(milliseconds=1))
            shown = choose_rows(rows, most=most - 2, most_notable=most // 3)
            lines += outline_lines(
                rows,
                list(tree_lines(rows, shown)),
                begin_ms=0,
                end_ms=max(now_ms, *rows.start, *rows.end),
                below=self._below(rows, now),
                loops={name: loop.iterations for name, loop in self._loops.items()},
                begun=self._begun,
                now_ms=now_ms,
                width=width,
            )
        elif self._fold.status == "paused":
            lines.append(Text(f"  ‖ {self._waits_for}", "yellow"))
        if len(lines) > most > 1:
            lines[most - 1 :] = [Text("  …", "dim")]
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        return lines[:most]

    def _add_to_step(self, event: StepEvent, at: datetime | None) -> None:
        address = (event.step_id, event.loop_path)
        match event:
            case LoopStarted():
                self._loops[event.step_id] = event
            case StepProgress():
                self._texts[address] = (self._texts.get(address, "") + event.text)[-TEXT_CHARS:]
                return
            case StepRetrying():
                due = None if at is None else at + timedelta(milliseconds=event.delay_ms)
                self._retries[address] = Retry(event.next_attempt, due, formatting.error_text(event.error))
            case StepStarted() | StepSkipped():
                self._retries.pop(address, None)
                for name, loop in self._loops.items():
                    # Iterations begin in the order of their numbers.
                    if loop.loop_path is None and event.loop_path and event.step_id in loop.step_ids:
                        self._begun[name] = max(self._begun[name], event.loop_path[0] + 1)
        if not isinstance(event, PASSING) or isinstance(event, StepStarted):
            self._texts.pop(address, None)

    def _open_rows(self) -> OutlineRows:
        """The outline of the steps that are open, inside of the loops that they are in."""
        is_paused, steps = self._fold.status == "paused", self._fold.open_steps
        nodes: list[Node] = []
        # What is inside of a loop is in those around it, which began before.
        loops = sorted(self._loops.items(), key=lambda each: -len(each[1].step_ids))
        inside = [frozenset(loop.step_ids) for _, loop in loops]
        leaves = list(dict.fromkeys(change.step.step_id for change in steps))
        for name, found in [
            *zip((name for name, _ in loops), inside, strict=True),
            *((leaf, {leaf}) for leaf in leaves),
        ]:
            around = range(min(len(nodes), len(loops)) - 1, NONE, -1)
            parent = next((number for number in around if inside[number] >= found), NONE)
            nodes.append(Node(name, name, "loop" if len(nodes) < len(loops) else "step", parent))
        builder = OutlineBuilder(nodes, started_at=self._fold.summary.started_at, seq=0, is_paused=is_paused)
        builder.add(
            (
                position,
                step.step_id,
                ",".join(map(str, step.loop_path or ())),
                step.attempt,
                "retried" if (step.step_id, step.loop_path) in self._retries else step.status,
                msgspec.json.encode(
                    {"startedAt": step.started_at, "completedAt": step.completed_at}
                    | {"tokens": step.tokens, "costUsd": step.cost_usd}
                ),
            )
            for position, step in steps
        )
        outline = next(made for made in builder.finish() if made is not None)
        rows = OutlineRows()
        rows.add(msgspec.json.decode(b"".join(outline.json_parts(0, outline.row_count)), type=OutlinePage))
        rows.finish()
        return rows

    def _below(self, rows: OutlineRows, now: datetime) -> dict[int, Text]:
        """By row why a step waits, or the end of what its model has said so far."""
        found = {}
        for row in filter(rows.has_attempt, range(len(rows))):
            address = (rows.step_id(row), rows.loop_path(row) or None)
            if (retry := self._retries.get(address)) is not None:
                found[row] = Text(f"{_next_attempt(retry, now)}: {retry.error}", "yellow")
            elif self._fold.status == "paused":
                found[row] = Text(self._waits_for, "yellow")
            else:
                again = f"attempt {rows.attempt[row]}" if rows.attempt[row] > 1 else ""
                text = one_line(self._texts.get(address, ""), limit=TEXT_CHARS)[-60:]
                if about := ": ".join(filter(None, (again, text and f"…{text}"))):
                    found[row] = Text(about, "dim")
        return found

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
