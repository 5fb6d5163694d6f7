"""`runglass runs`: look at runs of a server, end them and delete them."""

from collections.abc import Iterator
from datetime import datetime
from typing import Literal

import click
import msgspec
from rich.text import Text

from runglass.cli import argument_parsers, options
from runglass.cli.backends.server import Server, named_run, newest_runs
from runglass.cli.commands.delete_runs import cancel, delete
from runglass.cli.commands.rerun_runs import rerun
from runglass.cli.commands.run import tail
from runglass.cli.commands.run_files import export, import_run
from runglass.cli.commands.show_run import show
from runglass.cli.exit_codes import Exit, UsageError
from runglass.cli.terminal import formatting
from runglass.cli.terminal.output import note, one_line, stdout, write_json, write_line, write_lines
from runglass.cli.terminal.step_view import attempt_lines
from runglass.cli.terminal.table import print_runs
from runglass.diff.run_diff import RunDiff, address_text, change_text, row_text
from runglass.log.trace import RunStatus, StepAttempts
from runglass.wire.run_api import RunPage

MOST_PATHS = 10
"""Places in one input or output that are shown."""
_FLOWS = {
    "same": "",
    "drafts": "both are runs of the draft, which may have changed between them",
    "versions": "the runs are of different versions of the flow",
    "different": "the runs are of different flows; their attempts are paired by step, iteration and number",
}


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
@options.of_flow
@options.of_status
@click.option("--failed", is_flag=True, help="Only failed runs.")
@options.since
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
        write_page(page, limit=limit)


def write_page(page: RunPage, *, limit: int) -> None:
    """Writes the runs that were found, and as a note whether there are others."""
    print_runs(page.runs)
    if page.next_cursor is not None and len(page.runs) < limit:
        note("older runs were not searched; narrow the query by time or flow")
    elif page.next_cursor is not None:
        note(f"there are older ones; --limit shows more than these {len(page.runs)}")
    elif not page.runs:
        note("no run was found")


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
        write_lines(diff_lines(found))
        note(f"attempts that differ: {found.different_rows:,}; that are the same: {found.same_rows:,}")
        if found.size_only_rows:
            attempts = formatting.counted(found.size_only_rows, "attempt")
            note(
                f"input or output was not kept of {attempts}: sizes alone were compared, where they are known"
            )
        if found.cut:
            note("cut: not all was compared or listed, as the runs are large")
    if not found.same:
        raise click.exceptions.Exit(Exit.FAILED)


def diff_lines(found: RunDiff) -> Iterator[Text]:
    """Both runs, the first divergence, and the attempts that are told, each with a line for each change."""
    for name, run in (("first run", found.a), ("second run", found.b)):
        status = (run.status, formatting.mark(run.status)[1])
        about = f"{run.id}  {formatting.flow(run)}  "
        took = f"  {formatting.duration(run.duration_ms)}"
        yield Text.assemble((f"{name:<12}", "bold"), about, status, took)
    if _FLOWS[found.flows]:
        yield Text(_FLOWS[found.flows], "yellow")
    yield Text()
    if found.first_divergence is not None:
        sentence = one_line(found.first_divergence.sentence, limit=400)
        yield Text.assemble(("first divergence  ", "bold"), sentence)
    elif found.same:
        yield Text("the runs are the same", "green")
    else:
        yield Text("no difference was found, but not all was compared", "yellow")
    if found.rows:
        yield Text()
    for row in found.rows:
        yield Text(one_line(address_text(row.step_id, row.loop_path, row.attempt)), "bold")
        if not row.changes:
            yield Text("  the same", "dim")
        elif not (row.in_a and row.in_b):
            yield Text(f"  {one_line(row_text(row))}", "green" if row.in_b else "red")
        for change in row.changes if row.in_a and row.in_b else ():
            style = "dim" if change.field == "durationMs" else ""
            # A line for each place of those that are shown; the last one counts the others.
            for at in range(max(1, min(len(change.paths), MOST_PATHS))):
                paths = change.paths[at : None if at == MOST_PATHS - 1 else at + 1]
                text = change_text(msgspec.structs.replace(change, paths=paths))
                yield Text(f"  {one_line(text, limit=400)}", style)


for command in (show, tail, rerun, cancel, delete, export, import_run):
    group.add_command(command)
