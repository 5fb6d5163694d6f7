"""All commands under one name, and the way from an error to a message and an exit code."""

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from runglass import __version__
from runglass.cli.commands import data, flow, keys, projects, runs
from runglass.cli.commands.audit import audit
from runglass.cli.commands.run import run as run_flow
from runglass.cli.commands.serve import serve
from runglass.cli.demo.command import demo
from runglass.cli.exit_codes import Exit, UsageError, exit_of
from runglass.cli.interrupts import Interruptible, is_interrupt
from runglass.cli.terminal.output import PipeClosed, complain
from runglass.cli.typer_fast_path import take_plainly
from runglass.errors import RunglassError

app = typer.Typer(name="runglass", no_args_is_help=True, pretty_exceptions_enable=False)
app.command()(demo)
app.command()(serve)
app.command("run")(run_flow)
app.command()(audit)
app.add_typer(runs.app, name="runs")
app.add_typer(flow.app, name="flow")
app.add_typer(keys.app, name="keys")
app.add_typer(projects.app, name="projects")
app.add_typer(data.app, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"runglass {__version__}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Runs LLM flows and shows every run from the inside."""


def run(arguments: Sequence[str] | None) -> int:
    """Runs one command and returns its exit code; an expected error is one message, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that lacks a character is to show the others.
            stream.reconfigure(errors="replace")
    try:
        with Interruptible():
            code = _call(arguments)
        sys.stdout.flush()
    except (PipeClosed, BrokenPipeError):
        _drop_output()
        return Exit.PIPE_CLOSED
    except OSError as error:
        _drop_output()
        complain(f"the command cannot go on: {error}")
        return Exit.FAILED
    except BaseException as error:
        if is_interrupt(error):
            return Exit.INTERRUPTED
        raise
    return code


def _call(arguments: Sequence[str] | None) -> int:
    try:
        _check_text(sys.argv[1:] if arguments is None else arguments)
        take_plainly(get_command(app))(args=arguments, prog_name="runglass")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else Exit.OK
    except RunglassError as error:
        complain(str(error))
        return exit_of(error)
    return Exit.OK


def _check_text(arguments: Sequence[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"the argument {argument!a} is not UTF-8 text") from error


def _drop_output() -> None:
    # What is still buffered would fail once more when the interpreter flushes it at its end.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
