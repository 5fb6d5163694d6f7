"""`runglass runs`: look at runs of a server, end them and delete them."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from runglass.cli import argument_parsers
from runglass.cli.backends.run_lookup import named_run, newest_runs
from runglass.cli.commands.delete_runs import delete
from runglass.cli.exit_codes import Exit, UsageError
from runglass.cli.options import ApiKey, AsJson, BaseUrl, connect
from runglass.cli.terminal.event_lines import EventLines
from runglass.cli.terminal.output import note, stdout, width_of, write_json, write_line
from runglass.cli.terminal.run_table import print_runs
from runglass.cli.terminal.step_view import attempt_lines
from runglass.cli.terminal.trace_view import step_lines, summary_lines
from runglass.events import FlowCompleted, StreamEvent, UnknownEvent, is_terminal
from runglass.trace import RunStatus, StepAttempts

app = typer.Typer(
    no_args_is_help=True, help="Runs of a server: list them, read one, follow one, cancel one, delete some."
)

RunId = Annotated[
    str,
    typer.Argument(metavar="RUN_ID", help="The run's id, its end or beginning, or last for the newest run."),
]


@app.command("list")
def list_runs(
    flow: Annotated[
        str | None,
        typer.Option(metavar="FLOW", help="Only runs of this flow: its id, SLUG or ORG/PROJECT/SLUG."),
    ] = None,
    status: Annotated[RunStatus | None, typer.Option(help="Only runs with this status.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only runs that failed.")] = False,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only runs that began then or later: 30m, 2h, 1d, 2026-11-20."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """The newest runs that the key may see, newest first.

    A terminal gets short ids, which every command takes; a file or pipe gets whole ones.
    """
    if failed and status not in (None, "failed"):
        raise UsageError(f"give --failed or --status {status}, not both")
    after = None if since is None else argument_parsers.since(since, now=datetime.now(UTC))
    with connect(base_url, api_key) as client:
        page = newest_runs(client, flow=flow, status="failed" if failed else status, since=after, limit=limit)
    if as_json:
        write_json(page)
    else:
        print_runs(page.runs)
        if page.next_cursor is not None:
            note(f"there are older ones; --limit shows more than these {len(page.runs)}")


@app.command()
def show(run_id: RunId, as_json: AsJson = False, base_url: BaseUrl = None, api_key: ApiKey = None) -> None:
    """What a run came to, and its steps: the latest attempt of each, in each iteration."""
    with connect(base_url, api_key) as client:
        trace = named_run(client, run_id).trace()
    if as_json:
        write_json(trace)
        return
    console = stdout()
    for line in summary_lines(trace):
        write_line(console, line)
    write_line(console)
    for line in step_lines(trace, width=width_of(console)):
        write_line(console, line)


@app.command()
def tail(run_id: RunId, as_json: AsJson = False, base_url: BaseUrl = None, api_key: ApiKey = None) -> None:
    """Every event of a run from the first, then live until it ends. Exit code 1 if it does not complete."""
    console = stdout()
    lines = EventLines()
    last: StreamEvent | None = None
    with connect(base_url, api_key) as client:
        for last in named_run(client, run_id).live_trace():
            if as_json:
                write_json(last.data if isinstance(last, UnknownEvent) else last)
            else:
                write_line(console, lines.line(last))
    if last is not None and is_terminal(last) and not isinstance(last, FlowCompleted):
        raise typer.Exit(Exit.FAILED)


@app.command()
def cancel(run_id: RunId, base_url: BaseUrl = None, api_key: ApiKey = None) -> None:
    """End a run that has not ended; what it has done so far stays in its trace."""
    with connect(base_url, api_key) as client:
        run = named_run(client, run_id)
        run.cancel()
    write_line(stdout(), f"run {run.execution_id} is cancelled")


@app.command()
def step(
    run_id: RunId,
    step_id: Annotated[str, typer.Argument(metavar="STEP")],
    attempt: Annotated[str, typer.Option(help="latest, all or a number.")] = "latest",
    loop: Annotated[
        str | None,
        typer.Option(metavar="N", help="The iteration: 3, or 0.3 in nested loops, outer to inner."),
    ] = None,
    as_json: AsJson = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """One step of a run and all that was kept of it; in a loop by default its newest iteration."""
    number = argument_parsers.attempt(attempt)
    loop_path = None if loop is None else argument_parsers.loop_path(loop)
    with connect(base_url, api_key) as client:
        run = named_run(client, run_id)
        try:
            found = run.step_trace(step_id, attempt=number, loop_index=loop_path)
        except ValueError as error:
            raise UsageError(str(error)) from error
    if as_json:
        write_json(found)
        return
    console = stdout()
    for place, each in enumerate(found.attempts if isinstance(found, StepAttempts) else [found]):
        if place:
            write_line(console)
        for line in attempt_lines(each):
            write_line(console, line)


app.command()(delete)
