"""`runglass runs show`: why a run is as it is, its tree on the time axis, and what stands out in it."""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import click
from rich.text import Text

from runglass.cli import argument_parsers, options
from runglass.cli.backends.server import Server, named_run, read_attempt, read_outline
from runglass.cli.exit_codes import NotFound, UsageError
from runglass.cli.terminal import formatting
from runglass.cli.terminal.outline_rows import OutlineRows
from runglass.cli.terminal.output import note, one_line, stdout, width_of, write_json, write_line, write_lines
from runglass.cli.terminal.run_view import (
    MOST_SHOWN,
    ReadAttempt,
    attempt_list,
    errors_of,
    overview_lines,
)
from runglass.outlines.outline import NONE

MOST_RANKED = 1000
MOST_FAILED = 50
"""Failed attempts whose errors are fetched, one by one."""


@click.command()
@options.run_id
@click.option("--failed", is_flag=True, help="Only failed attempts, with their errors.")
@click.option(
    "--slowest",
    type=options.WholeNumber(min=1, max=MOST_RANKED),
    metavar="N",
    help="Only the N slowest attempts.",
)
@click.option(
    "--costliest",
    type=options.WholeNumber(min=1, max=MOST_RANKED),
    metavar="N",
    help="Only the N most expensive attempts.",
)
@click.option(
    "--inside",
    type=argument_parsers.step_id,
    metavar="STEP",
    help="Only what is inside this loop, condition or parallel step.",
)
@click.option(
    "--loop",
    type=argument_parsers.loop_path,
    metavar="N",
    help="With --inside, the iteration: 3, or 0.3 in nested loops, outer to inner.",
)
@click.option("--all", "show_all", is_flag=True, help="Every row of the tree, unfolded.")
@options.as_json
@options.server
def show(
    run_id: str,
    failed: bool,
    slowest: int | None,
    costliest: int | None,
    inside: str | None,
    loop: tuple[int, ...] | None,
    show_all: bool,
    as_json: bool,
    server: Server,
) -> None:
    """Show why a run failed or what it does, and its tree of steps and attempts on the time axis.

    A long tree is folded: failed, active and retried steps are shown first. `took` is from a step's recorded
    start to its end. --json prints the trace.
    """
    is_part = failed or slowest is not None or costliest is not None
    if as_json and (is_part or inside is not None or show_all):
        raise UsageError("--json prints the whole trace; --failed, --slowest and the like choose for people")
    if is_part and (inside is not None or show_all):
        raise UsageError("--all and --inside are for the tree, which --failed and rankings leave out")
    if loop is not None and inside is None:
        raise UsageError("--loop names an iteration of a step: say which step with --inside")
    console = stdout()
    with server.connect() as client:
        run = named_run(client, run_id)
        if as_json:
            write_json(run.trace())
            return
        # The summary comes first: of a run that it says has ended, the outline is whole.
        summary, rows = run.summary(), read_outline(run)
        named = (run.execution_id if run_id == "last" else run_id) + server.options
        read, width = partial(read_attempt, run), width_of(console)
        if not is_part:
            within = NONE if inside is None else _row_of(rows, inside, loop)
            most = len(rows) if show_all else MOST_SHOWN
            about = summary, rows, read
            write_lines(overview_lines(*about, named=named, width=width, within=within, most=most))
            return
        listed = failed_attempts(rows) if failed else []
        if failed:
            title = f"{formatting.counted(len(listed), 'attempt')} failed"
            write_line(console, title, style="bold underline")
            write_lines(failed_lines(rows, listed, read, width=width))
        for title, number, value in (
            ("What took longest", slowest, OutlineRows.took_ms),
            ("What cost most", costliest, OutlineRows.cost_usd),
        ):
            if number is not None:
                write_line(console, title, style="bold underline")
                write_lines(attempt_list(rows, found := largest_attempts(rows, number, value), width=width))
                listed = [*listed, *found]
        if listed:
            note(f"look closer: runglass runs step {named} STEP …, as a line above begins")


def _row_of(rows: OutlineRows, name: str, loop: tuple[int, ...] | None) -> int:
    """The row of a step, or of an iteration of it. Raises NotFound."""
    found = [row for row in range(len(rows)) if rows.step_id(row) == name and rows.kind(row) != "attempt"]
    if not found:
        raise NotFound(f"the run has no step {name!r}; `runglass runs show` has its steps")
    for row in found:
        if loop is None or rows.loop_path(row) == loop:
            return row
    where = ".".join(map(str, loop or ()))
    raise NotFound(f"step {name!r} of the run has no iteration {where}")


def largest_attempts(rows: OutlineRows, most: int, value: Callable[[OutlineRows, int], Any]) -> Sequence[int]:
    """Up to `most` attempts of which the value is known, that with the largest one first."""
    found = rows.rows_with("completed", "retried", "cancelled", "failed", "running", "waiting")
    # A span that has others inside takes longer than they do, and costs as much.
    known = {row: value(rows, row) for row in found if rows.size[row] == 1}
    return heapq.nlargest(most, (row for row in known if known[row] is not None), key=known.__getitem__)


def failed_attempts(rows: OutlineRows) -> Sequence[int]:
    """All attempts that failed, in the order of the tree."""
    return list(rows.rows_with("failed", "retried"))


def failed_lines(
    rows: OutlineRows, failed: Sequence[int], read: ReadAttempt, *, width: int | None
) -> Iterator[Text]:
    """The first failed attempts, each with its error; of the others their number."""
    first = failed[:MOST_FAILED]
    if first:
        yield from attempt_list(rows, first, errors=errors_of(rows, first, read), width=width)
    rest = Counter(rows.name(row) for row in failed[MOST_FAILED:])
    if rest:
        steps = ", ".join(f"{one_line(name)} {number:,} times" for name, number in rest.most_common(5))
        more = " and others" if len(rest) > 5 else ""
        yield Text(f"… and {formatting.counted(rest.total(), 'attempt')} more: {steps}{more}", "dim")
