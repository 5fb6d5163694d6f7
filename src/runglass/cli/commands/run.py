"""`runglass run` and `runglass runs tail`: a run on a server, watched until it ends."""

import math
from contextlib import nullcontext
from typing import IO, Any

import click
import msgspec

from runglass.cli import argument_parsers, options
from runglass.cli.argument_parsers import FlowName
from runglass.cli.backends.run_watcher import WatchedRun, leave_or_cancel
from runglass.cli.backends.server import Server, flow_address, named_run
from runglass.cli.exit_codes import Exit, UsageError, exit_of
from runglass.cli.terminal.event_lines import EventLines
from runglass.cli.terminal.output import (
    can_repaint,
    complain,
    is_watched,
    note,
    stderr,
    stdout,
    write_json,
    write_line,
)
from runglass.cli.terminal.run_progress import following
from runglass.client.core import run_requests
from runglass.errors import APIError
from runglass.log.events import FlowCompleted, StreamEvent, UnknownEvent, is_terminal
from runglass.wire.run_api import Version


@click.command()
@options.flow
@click.option("--message", "-m", metavar="TEXT", help="The run's `message`.")
@click.option("--message-file", type=click.File("rb"), help="Read the message from a file; - reads stdin.")
@click.option(
    "--param",
    "-p",
    "parameters",
    type=argument_parsers.parameter,
    multiple=True,
    metavar="NAME=VALUE",
    help="Another input, as JSON or text.",
)
@click.option(
    "--params-file",
    type=click.File("rb"),
    help="Read other inputs from a JSON object in a file; - reads stdin. --param wins.",
)
@click.option(
    "--version",
    type=argument_parsers.version,
    default="production",
    metavar="VERSION",
    help="production, draft or a version number.",
)
@click.option("--trace", is_flag=True, help="Keep every input and output, if the mode is metadata_only.")
@click.option(
    "--timeout",
    type=options.Number(min=0, min_open=True),
    metavar="SECONDS",
    show_default=False,
    help="Maximum wait in seconds; by default unlimited.",
)
@options.as_json
@options.server
def run(
    flow: FlowName,
    message: str | None,
    message_file: IO[bytes] | None,
    parameters: tuple[tuple[str, Any], ...],
    params_file: IO[bytes] | None,
    version: Version,
    trace: bool,
    timeout: float | None,
    as_json: bool,
    server: Server,
) -> None:
    """Run a flow and print its result as JSON; --json prints the whole response or error.

    The run's id is printed first, on stderr. Ctrl-C detaches from the run, twice cancels it. If the server is
    lost, the command waits for it within --timeout.
    """
    if message_file is not None:
        if message is not None:
            raise UsageError("give --message or --message-file, not both")
        message = argument_parsers.text_of(message_file.read(), "the message")
    given: dict[str, Any] = {}
    if params_file is not None:
        text = argument_parsers.text_of(params_file.read(), "the file of parameters")
        try:
            given = msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise UsageError(f"the file of parameters has to be one JSON object: {error}") from error
    with server.connect(flow.project, executes=True) as client:
        name, slug = flow_address(client, flow)
        call = run_requests.job(
            client.flow(f"{name}/{slug}")._address,
            message=message,
            parameters=given | dict(parameters),
            version=version,
            trace=trace,
        )
        watched = WatchedRun(client, call, timeout_s=math.inf if timeout is None else timeout)
        shown = following(stderr()) if is_watched(stderr()) else nullcontext(lambda event: None)
        try:
            with shown as show:
                completed = watched.result(show, on_named=lambda run_id: note(f"run {run_id}"))
        except APIError as error:
            _report(error, as_json=as_json, options=server.options)
            raise click.exceptions.Exit(exit_of(error)) from error
        except KeyboardInterrupt as press:
            leave_or_cancel(client, watched.run_id, options=server.options)
            raise click.exceptions.Exit(Exit.INTERRUPTED) from press
    if as_json:
        write_json(completed)
    else:
        write_json(completed.result, indent=2)
    if is_watched(stderr()):
        note(f"look closer: runglass runs show {completed.execution_id}{server.options}")


def _report(error: APIError, *, as_json: bool, options: str) -> None:
    where = {"executionId": error.execution_id, "stepId": error.step_id}
    where = {name: value for name, value in where.items() if value is not None}
    if as_json:
        write_json({"detail": {"code": error.code, "message": error.message, **error.details, **where}})
    complain(str(error))
    if error.step_id is not None:
        note(f"step:  {error.step_id}")
    if error.execution_id is not None:
        note(f"trace: runglass runs show {error.execution_id}{options}")


@click.command()
@options.run_id
@options.as_json
@options.server
def tail(run_id: str, as_json: bool, server: Server) -> None:
    """Show a run from its first event on, live until it ends. Exit code 1 if it does not complete.

    On a terminal active steps are below the finished ones; a file or pipe gets one event per line.
    """
    console = stdout()
    with server.connect() as client:
        run = named_run(client, run_id)
        last: StreamEvent | None = None
        try:
            if not as_json and can_repaint(console):
                with following(console) as show:
                    for last in run.live_trace():
                        show(last)
            else:
                lines = EventLines()
                for last in run.live_trace():
                    if as_json:
                        write_json(last.data if isinstance(last, UnknownEvent) else last)
                    else:
                        write_line(console, lines.line(last))
        except KeyboardInterrupt:
            if can_repaint(console) and not as_json:
                note(f"follow it again: runglass runs tail {run.execution_id}{server.options}")
                note(f"cancel it: runglass runs cancel {run.execution_id}{server.options}")
            raise
    if last is not None and is_terminal(last) and not isinstance(last, FlowCompleted):
        if not as_json:
            note(f"why, and where: runglass runs show {run.execution_id}{server.options}")
        raise click.exceptions.Exit(Exit.FAILED)
