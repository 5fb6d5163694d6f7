"""`runglass run`: run a flow on a server and print its result."""

import asyncio
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from runglass.cli import argument_parsers, options
from runglass.cli.argument_parsers import ProjectName
from runglass.cli.backends.server import Server
from runglass.cli.exit_codes import UsageError, exit_of
from runglass.cli.terminal.event_lines import PASSING, EventLines, step_label
from runglass.cli.terminal.output import complain, is_watched, note, stderr, write_json, write_line
from runglass.errors import APIError, APITimeoutError
from runglass.log.events import StepStarted, StreamEvent
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
    help="A further input, as JSON or text.",
)
@click.option(
    "--params-file",
    metavar="FILE",
    help="Read further inputs from a JSON file, one object; - reads stdin. --param goes before it.",
)
@click.option(
    "--version",
    type=argument_parsers.version,
    default="production",
    metavar="VERSION",
    help="production, draft or a version's number.",
)
@click.option("--trace", is_flag=True, help="Keep every input and output of this run.")
@click.option(
    "--timeout",
    type=argument_parsers.seconds,
    metavar="SECONDS",
    help="Seconds to wait at most; by default as long as it takes.",
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
    """Run a flow and print its result as JSON; --json prints the whole answer, or the whole error.

    The run's id comes first, on stderr. Ctrl-C stops watching and leaves the run alone, twice cancels it. A
    server that is lost while the run goes on is waited for, as long as --timeout allows.
    """
    if message_file == "-" == params_file:
        raise UsageError("stdin is read once: give --message-file or --params-file another file")
    project, slug = flow
    if message_file is not None:
        if message is not None:
            raise UsageError("give --message or --message-file, not both")
        message = _text_of(message_file, "message file")
    call = {
        "flow": f"{project}/{slug}",
        "message": message,
        "parameters": _parameters(params_file) | dict(parameters),
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


def _parameters(file: str | None) -> dict[str, Any]:
    if file is None:
        return {}
    text = _text_of(file, "file of parameters")
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise UsageError(f"file of parameters {file!r} has to be one JSON object: {error}") from error


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
        goes_on = f"it goes on: runglass runs tail {run.run_id}"
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
        note("inputs beside the message are given with --param NAME=VALUE, or in a --params-file")
    if error.step_id is not None:
        note(f"step:  {error.step_id}")
    if error.execution_id is not None:
        note(f"run:   {error.execution_id}")
        note(f"trace: runglass runs show {error.execution_id}")
