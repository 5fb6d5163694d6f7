"""`runglass runs`: look at runs of a server, end them and delete them."""

from datetime import datetime
from typing import Literal, get_args

import click

from runglass.cli import argument_parsers, options
from runglass.cli.backends.server import Server, named_run, newest_runs
from runglass.cli.commands.delete_runs import cancel, delete
from runglass.cli.commands.rerun_runs import rerun
from runglass.cli.commands.run import tail
from runglass.cli.commands.run_files import export, import_run
from runglass.cli.commands.show_run import show
from runglass.cli.exit_codes import Exit, UsageError
from runglass.cli.terminal.diff_view import conclusion, diff_lines, head_lines
from runglass.cli.terminal.output import note, stdout, width_of, write_json, write_line, write_lines
from runglass.cli.terminal.step_view import attempt_lines
from runglass.cli.terminal.table import print_runs
from runglass.log.trace import RunStatus, StepAttempts
from runglass.wire.run_api import RunPage


@click.group("runs", cls=options.CommandGroup)
def group() -> None:
    """List, read, follow, compare, rerun, cancel, delete, export and import runs."""


@group.command("list")
@click.argument(
    "query",
    required=False,
    metavar="[QUERY]",
    help="Only matching runs: 'status:failed since:24h refund'.",
)
@click.option("--flow", metavar="FLOW", help="Only runs of this flow: its id, SLUG or ORG/PROJECT/SLUG.")
@click.option("--status", type=click.Choice(get_args(RunStatus)), help="Only runs with this status.")
@click.option("--failed", is_flag=True, help="Only failed runs.")
@click.option(
    "--since",
    type=argument_parsers.since,
    metavar="TIME",
    help="Only runs since then: 30m, 2h, 1d, 2026-11-20.",
)
@options.limit
@options.as_json
@options.server
def list_runs(
    query: str | None,
    flow: str | None,
    status: RunStatus | None,
    failed: bool,
    since: datetime | None,
    limit: int,
    as_json: bool,
    server: Server,
) -> None:
    """List the runs that the key may see, newest first.

    A query has terms such as status:failed flow:grade-3 version:3 trigger:job since:24h duration:>3s
    cost:>0.01 tokens:>10k step:words model:gpt-4o error:TIMEOUT; a - in front excludes, and other words
    search the kept content. Quote it, and write -- before a query that begins with a -.
    A terminal gets short ids, which every command takes, and previews of input and result; a file or pipe
    gets complete ids and one run per line.
    """
    if failed and status not in (None, "failed"):
        raise UsageError(f"give --failed or --status {status}, not both")
    with server.connect() as client:
        page = newest_runs(
            client,
            query=query,
            flow=flow,
            status="failed" if failed else status,
            since=since,
            limit=limit,
        )
    if as_json:
        write_json(page)
    else:
        write_page(page, query=query, limit=limit)


def write_page(page: RunPage, *, query: str | None, limit: int) -> None:
    """Writes the runs that were found, and as a note whether there are others."""
    print_runs(page.runs)
    if page.next_cursor is not None and len(page.runs) < limit:
        note("older runs were not searched; narrow the query by time or flow")
    elif page.next_cursor is not None:
        note(f"there are older ones; --limit shows more than these {len(page.runs)}")
    elif not page.runs:
        has_text = any(":" not in word or "text:" in word for word in (query or "").split())
        kept = "; inputs and outputs are searched only where they were kept, as --trace does"
        note(f"no run was found{kept if has_text else ''}")


@group.command()
@options.run_id
@click.argument(
    "step_id",
    type=argument_parsers.step_id,
    metavar="STEP",
    help="The step's id or name, as `runs show` lists it.",
)
@click.option(
    "--attempt",
    type=argument_parsers.attempt,
    default="latest",
    metavar="N",
    help="latest, all or a number.",
)
@click.option(
    "--loop",
    type=argument_parsers.loop_path,
    metavar="N",
    help="The iteration: 3, or 0.3 in nested loops, outer to inner.",
)
@options.as_json
@options.server
def step(
    run_id: str,
    step_id: str,
    attempt: Literal["latest", "all"] | int,
    loop: tuple[int, ...] | None,
    as_json: bool,
    server: Server,
) -> None:
    """Show all that is kept of a step; in a loop, by default of its newest iteration."""
    with server.connect() as client:
        run = named_run(client, run_id)
        try:
            found = run.step_trace(step_id, attempt=attempt, loop_index=loop)
        except ValueError as error:
            raise UsageError(str(error)) from error
    if as_json:
        write_json(found)
        return
    for index, trace in enumerate(found.attempts if isinstance(found, StepAttempts) else [found]):
        if index:
            write_line(stdout())
        write_lines(attempt_lines(trace))


@group.command()
@click.argument("run_a", metavar="A", help="A run, as `runs show` takes it.")
@click.argument("run_b", metavar="B", help="The run to compare it with.")
@click.option("--all", "with_same", is_flag=True, help="List unchanged attempts, too.")
@options.as_json
@options.server
def diff(run_a: str, run_b: str, with_same: bool, as_json: bool, server: Server) -> None:
    """Show what differs between two runs, attempt by attempt. Exit code 1 if they differ.

    Attempts are paired by step, iteration and number, also of other versions and flows. The first divergence
    is the first in the order of the flow. Durations are no difference.
    """
    with server.connect() as client:
        found = named_run(client, run_a).diff(named_run(client, run_b), all=with_same)
    if as_json:
        write_json(found)
    else:
        write_lines(head_lines(found))
        write_lines(diff_lines(found, width=width_of(stdout())))
        for remark in conclusion(found):
            note(remark)
    if not found.same:
        raise click.exceptions.Exit(Exit.FAILED)


group.add_command(show)
group.add_command(tail)
group.add_command(rerun)
group.add_command(cancel)
group.add_command(delete)
group.add_command(export)
group.add_command(import_run)
