"""Runs as a table: status, flow, when, how much it took, what came of it, previews of input and result."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from rich.text import Text

from runglass.cli.terminal import formatting
from runglass.cli.terminal.output import one_line, stdout, width_of, write_lines
from runglass.cli.terminal.table import Cell, Column, Row, table_lines
from runglass.log.trace import RunSummary

COLUMNS = (
    Column("run"),
    Column("status"),
    Column("flow"),
    Column("started", spare=3),
    Column("duration", right=True, spare=2),
    Column("steps", right=True, spare=5),
    Column("tokens", right=True, spare=6),
    Column("cost", right=True),
    Column("trigger", spare=7),
    Column("remarks", spare=1, least=24),
)
SHORT_CHARS = 8
"""A short id is the end of the id: the beginning is its time, which runs of one moment share."""
PREVIEWS = (Column("input"), Column("result"))


def print_runs(runs: Sequence[RunSummary]) -> None:
    """The table on stdout.

    A terminal gets short ids, how long ago a run began, and the previews on a line below it; a program gets
    whole ids and times, and one line for each run.
    """
    width = width_of(stdout())
    short_ids = Counter(run.id[-SHORT_CHARS:] for run in runs)
    now = datetime.now(UTC)
    rows = []
    for run in runs:
        name, started = run.id, formatting.local_time(run.started_at)
        if width is not None:
            started = formatting.age(run.started_at, now=now)
            name = run.id[-SHORT_CHARS:] if short_ids[run.id[-SHORT_CHARS:]] == 1 else run.id
        rows.append(_row(run, name, started, width))
    columns = COLUMNS if width is not None else (*COLUMNS, *PREVIEWS)
    write_lines(table_lines(columns, rows, width=width))


def _row(run: RunSummary, name: str, started: str, width: int | None) -> Row:
    tokens = run.totals.tokens if run.totals is not None else None
    remarks = _remarks(run)
    mark, style = formatting.mark(run.status)
    return Row(
        (
            Cell(name),
            Cell(f"{mark} {run.status}", style),
            Cell(formatting.flow(run)),
            Cell(started),
            Cell(formatting.duration(run.duration_ms)),
            Cell(formatting.steps(run)),
            Cell(formatting.UNKNOWN if tokens is None else formatting.count(tokens.total)),
            Cell(formatting.UNKNOWN if run.totals is None else formatting.least_money(run.totals)),
            Cell(run.trigger_type or formatting.UNKNOWN),
            Cell(remarks, "red" if run.error is not None else "yellow"),
            Cell(run.input_preview or ""),
            Cell(run.result_preview or ""),
        ),
        [] if width is None else [*_previews(run, width)],
    )


def _previews(run: RunSummary, width: int) -> Iterator[Text]:
    given, result = (Text(one_line(text or ""), "dim") for text in (run.input_preview, run.result_preview))
    if given or result:
        room = max(width - len("   → "), 2)
        given.truncate(max(room // 2, room - result.cell_len), overflow="ellipsis")
        result.truncate(room - given.cell_len, overflow="ellipsis")
        yield Text.assemble("  ", given, " → " if result else "", result)


def _remarks(run: RunSummary) -> str:
    parts = ["cannot be read"] if run.unreadable else []
    if run.error is not None:
        parts.append(formatting.run_error(run.error))
    totals = run.totals
    # A run may complete though steps failed; where it failed, its error says so.
    if totals is not None and totals.failed and run.error is None:
        parts.append(f"{formatting.counted(totals.failed, 'step')} failed")
    if totals is not None and (cut := formatting.cut_short(totals)):
        parts.append(cut)
    if totals is not None and totals.unmetered_calls:
        parts.append(f"{formatting.counted(totals.unmetered_calls, 'model call')} without known usage")
    if run.overridden:
        parts.append("with overrides")
    return one_line("; ".join(parts), limit=400)
