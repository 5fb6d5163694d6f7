"""`runglass run` and `runglass runs tail`: a run on a server, watched until it ends."""

import asyncio
import math
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.console import Console

from runglass.cli import argument_parsers, options
from runglass.cli.argument_parsers import ProjectName
from runglass.cli.backends.server import Server, named_run
from runglass.cli.exit_codes import Exit, UsageError, exit_of
from runglass.cli.terminal.event_lines import PASSING, EventLines, step_label
from runglass.cli.terminal.output import (
    FRAME_S,
    LiveArea,
    can_repaint,
    complain,
    is_watched,
    note,
    stderr,
    stdout,
    write_json,
    write_line,
)
from runglass.cli.terminal.run_progress import MOST_LINES, RunProgress
from runglass.errors import APIError, APITimeoutError
from runglass.log.events import FlowCompleted, StepError, StepStarted, StreamEvent, UnknownEvent, is_terminal
from runglass.wire.run_api import CompletedResult, Version

if TYPE_CHECKING:
    from runglass.cli.backends.run_watcher import WatchedRun


@click.command()
@options.flow
@click.option("--message", "-m", metavar="TEXT", help="The run's `message`.")
@click.option("--message-file", metavar="FILE", help="Read the message from a file; - reads stdin.")
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
    metavar="FILE",
    help="Read other inputs from a JSON object in a file; - reads stdin. --param wins.",
)
@click.option(
    "--version",
    type=argument_parsers.version,
    default="production",
    metavar="VERSION",
    help="production, draft or a version number.",
)
@click.option("--trace", is_flag=True, help="Keep every input and output of this run.")
@click.option(
    "--timeout",
    type=argument_parsers.seconds,
    metavar="SECONDS",
    help="Maximum wait in seconds; by default unlimited.",
)
@options.as_json
@options.server
def run(
    flow: tuple[ProjectName, str],
    message: str | None,
    message_file: str | None,
    parameters: tuple[tuple[str, Any], ...],
    params_file: str | None,
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
    if message_file == "-" == params_file:
        raise UsageError("stdin is read once: give --message-file or --params-file another file")
    project, slug = flow
    if message_file is not None:
        if message is not None:
            raise UsageError("give --message or --message-file, not both")
        message = _text_of(message_file, "message file")
    given: dict[str, Any] = {}
    if params_file is not None:
        text = _text_of(params_file, "file of parameters")
        try:
            given = msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise UsageError(
                f"file of parameters {params_file!r} has to be one JSON object: {error}"
            ) from error
    call = {
        "flow": f"{project}/{slug}",
        "message": message,
        "parameters": given | dict(parameters),
        "version": version,
        "trace": trace,
    }
    try:
        completed = asyncio.run(_execute(server, math.inf if timeout is None else timeout, call))
    except APIError as error:
        _report(error, as_json=as_json)
        raise click.exceptions.Exit(exit_of(error)) from error
    if as_json:
        write_json(completed)
    else:
        write_json(completed.result, indent=2)
    if is_watched(stderr()):
        note(f"look closer: runglass runs show {completed.execution_id}")


def _text_of(file: str, kind: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{kind} {file!r} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{kind} {file!r} is not UTF-8 text: byte {error.start} is wrong") from error


async def _execute(server: Server, timeout_s: float, call: Mapping[str, Any]) -> CompletedResult:
    # Imported here: the module brings the client along, and mistakes on the command line come before that.
    from runglass.cli.backends.run_watcher import WatchedRun, until_interrupted

    async with server.connect_async() as client:
        run = WatchedRun(client, **call)
        return await until_interrupted(run, _within(timeout_s, run))


async def _within(timeout_s: float, run: "WatchedRun") -> CompletedResult:
    try:
        async with asyncio.timeout(None if math.isinf(timeout_s) else timeout_s):
            return await _watch(run)
    except TimeoutError as error:
        if run.run_id is None:
            raise APITimeoutError(f"the server did not answer within {timeout_s:g} s") from error
        goes_on = f"it continues: runglass runs tail {run.run_id}"
        raise APITimeoutError(f"the run did not end within {timeout_s:g} s; {goes_on}") from error


async def _watch(run: "WatchedRun") -> CompletedResult:
    console = stderr()
    if not is_watched(console):
        return await run.result(on_named=lambda run_id: note(f"run {run_id}"))
    lines = EventLines()

    def show(event: StreamEvent) -> None:
        line = lines.line(event)
        if not isinstance(event, PASSING):
            write_line(console, line)
        if isinstance(event, StepStarted):
            status.update(f"running {step_label(event)} …")

    with console.status("running …") as status:
        return await run.result(show, on_named=lambda run_id: write_line(console, f"run {run_id}"))


def _report(error: APIError, *, as_json: bool) -> None:
    where = {"executionId": error.execution_id, "stepId": error.step_id}
    where = {name: value for name, value in where.items() if value is not None}
    if as_json:
        write_json({"detail": {"code": error.code, "message": error.message, **error.details, **where}})
    complain(str(error))
    if error.code == "INVALID_REQUEST" and "`parameters." in error.message:
        note("give other inputs than the message with --param NAME=VALUE, or in a --params-file")
    if error.step_id is not None:
        note(f"step:  {error.step_id}")
    if error.execution_id is not None:
        note(f"run:   {error.execution_id}")
        note(f"trace: runglass runs show {error.execution_id}")


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
        if not as_json and can_repaint(console):
            try:
                last = asyncio.run(_follow(console, run.execution_id, server))
            except KeyboardInterrupt:
                note(f"follow it again: runglass runs tail {run.execution_id}")
                note(f"cancel it: runglass runs cancel {run.execution_id}")
                raise
        else:
            last, lines = None, EventLines()
            for last in run.live_trace():
                if as_json:
                    write_json(last.data if isinstance(last, UnknownEvent) else last)
                else:
                    write_line(console, lines.line(last))
    if last is not None and is_terminal(last) and not isinstance(last, FlowCompleted):
        if not as_json:
            note(f"why, and where: runglass runs show {run.execution_id}")
        raise click.exceptions.Exit(Exit.FAILED)


async def _follow(console: Console, run_id: str, server: Server) -> StreamEvent | None:
    """Shows the run until it ends; its last event."""
    progress = RunProgress()
    last: StreamEvent | None = None
    async with server.connect_async() as client:
        with LiveArea(console) as area:
            repainting = asyncio.create_task(_repaint(area, progress))
            try:
                async for last in client.run(run_id).live_trace():
                    for line in progress.add(last):
                        if not isinstance(last, StepError) and not is_terminal(last):
                            line.truncate(area.size[0], overflow="ellipsis")
                        area.keep(line)
                    if area.is_due:
                        _paint(area, progress)
            finally:
                repainting.cancel()
                with suppress(asyncio.CancelledError):
                    await repainting
    return last


async def _repaint(area: LiveArea, progress: RunProgress) -> None:
    while True:
        _paint(area, progress)
        await asyncio.sleep(FRAME_S)


def _paint(area: LiveArea, progress: RunProgress) -> None:
    width, height = area.size
    area.paint(progress.lines(now=datetime.now(UTC), width=width, most=min(MOST_LINES, height)))
