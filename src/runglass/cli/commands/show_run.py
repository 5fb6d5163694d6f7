"""`runglass runs show`: why a run is as it is, its tree on the time axis, and what stands out in it."""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

import click
from rich.text import Text

from runglass.cli import argument_parsers, options
from runglass.cli.backends.server import Server, named_run, read_attempts, read_outline
from runglass.cli.exit_codes import NotFound, UsageError
from runglass.cli.terminal import formatting
from runglass.cli.terminal.outline_rows import OutlineRows
from runglass.cli.terminal.output import note, one_line, stdout, width_of, write_json, write_line, write_lines
from runglass.cli.terminal.run_view import MOST_SHOWN, RunOverview, attempt_list, error_lines
from runglass.log.trace import StepTrace
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
        if is_part:
            width, parts = width_of(console), list[tuple[str, Iterator[Text]]]()
            if failed:
                found = failed_attempts(rows)
                attempts = read_attempts(run, [(row, rows.address(row)) for row in found[:MOST_FAILED]])
                title = f"{formatting.counted(len(found), 'attempt')} failed"
                parts.append((title, failed_lines(rows, found, attempts, width=width)))
            for title, most, ranked in (
                ("What took longest", slowest, slowest_attempts),
                ("What cost most", costliest, costliest_attempts),
            ):
                if most is not None:
                    parts.append((title, attempt_list(rows, ranked(rows, most), width=width)))
            for title, lines in parts:
                write_line(console, title, style="bold underline")
                write_lines(lines)
            note(f"look closer: runglass runs step {named} STEP …, as a line above begins")
            return
        within = NONE if inside is None else _row_of(rows, inside, loop)
        most = len(rows) if show_all else MOST_SHOWN
        overview = RunOverview(summary, rows, within=within, most=most)
        attempts = read_attempts(run, overview.wanted)
    write_lines(overview.lines(attempts, named=named, width=width_of(console)))


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


def slowest_attempts(rows: OutlineRows, most: int) -> Sequence[int]:
    """Up to `most` attempts that have ended, the one that took longest first."""
    ended = (row for row in _attempts(rows) if rows.took_ms(row) is not None)
    return heapq.nlargest(most, ended, key=lambda row: rows.took_ms(row) or 0)


def costliest_attempts(rows: OutlineRows, most: int) -> Sequence[int]:
    """Up to `most` attempts whose cost is known, the most expensive one first."""
    priced = (row for row in _attempts(rows) if rows.cost[row] is not None)
    return heapq.nlargest(most, priced, key=lambda row: Decimal(rows.cost[row] or 0))


def failed_attempts(rows: OutlineRows) -> Sequence[int]:
    """All attempts that failed, in the order of the tree."""
    return list(rows.rows_with("failed", "retried"))


def failed_lines(
    rows: OutlineRows, failed: Sequence[int], attempts: Mapping[int, StepTrace], *, width: int | None
) -> Iterator[Text]:
    """Each failed attempt of which `attempts` tells more, with its error; of the others their number."""
    if attempts:
        yield from attempt_list(rows, list(attempts), errors=error_lines(attempts), width=width)
    rest = Counter(rows.name(row) for row in failed if row not in attempts)
    if rest:
        steps = ", ".join(f"{one_line(name)} {number:,} times" for name, number in rest.most_common(5))
        more = " and others" if len(rest) > 5 else ""
        yield Text(f"… and {formatting.counted(rest.total(), 'attempt')} more: {steps}{more}", "dim")


def _attempts(rows: OutlineRows) -> Iterator[int]:
    found = rows.rows_with("completed", "retried", "cancelled", "failed", "running", "waiting")
    # A span that has others inside takes longer than they do, and costs as much.
    return (row for row in found if rows.size[row] == 1)
