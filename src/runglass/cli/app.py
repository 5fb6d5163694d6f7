"""All commands under one name, and the way from an error to a message and an exit code.

While a command runs, Ctrl-C is an error like any other, so that the command can end its work in order; before
and after that, `end_at_once` handles it.
"""

import io
import os
import signal
import sys
import threading
from collections.abc import Sequence

import click

from runglass import __version__
from runglass.cli import end_at_once
from runglass.cli.commands import data, flow, projects, runs
from runglass.cli.commands.data import audit, migrate, processes
from runglass.cli.commands.doctor import doctor
from runglass.cli.commands.run import run as run_flow
from runglass.cli.commands.serve import open_viewer, serve, worker
from runglass.cli.commands.watch import watch
from runglass.cli.demo.command import demo
from runglass.cli.exit_codes import Exit, UsageError, exit_of
from runglass.cli.options import CommandGroup
from runglass.cli.terminal.output import PipeClosed, complain
from runglass.errors import RunglassError

HELP_WIDTH = 100
AGAIN_S = 0.01

# The line with \b keeps click from filling the lines after it up to a paragraph.
COMPLETION = """\
\b
Tab completes commands and options after this line in the start file of the shell:
  bash  eval "$(_RUNGLASS_COMPLETE=bash_source runglass)"
  zsh   eval "$(_RUNGLASS_COMPLETE=zsh_source runglass)"
  fish  _RUNGLASS_COMPLETE=fish_source runglass | source
"""


@click.group(
    "runglass",
    cls=CommandGroup,
    context_settings={"max_content_width": HELP_WIDTH, "show_default": True},
    epilog=COMPLETION,
)
@click.version_option(__version__, message="%(prog)s %(version)s", help="Print the version.")
def app() -> None:
    """Runs LLM flows and shows every run from the inside."""


for command in (
    demo,
    serve,
    worker,
    open_viewer,
    run_flow,
    watch,
    doctor,
    audit,
    runs.group,
    flow.group,
    projects.keys_group,
    projects.group,
    data.group,
    migrate,
    processes,
):
    app.add_command(command)


def run(arguments: Sequence[str] | None) -> int:
    """Runs one command and returns its exit code; an expected error is one message, never a traceback."""
    # Python has None for a stream that the caller closed, and the next file would get its descriptor.
    sys.stdin = sys.stdin or os.fdopen(os.open(os.devnull, os.O_RDONLY))
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that lacks a character is to show the others.
            stream.reconfigure(errors="replace")
    try:
        with Interruptible():
            code = _call(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except (PipeClosed, BrokenPipeError):
        _drop_output()
        return Exit.PIPE_CLOSED
    except OSError as error:
        _drop_output()
        complain(f"the command cannot continue: {error}")
        return Exit.FAILED
    except BaseException as error:
        if is_interrupt(error):
            return Exit.INTERRUPTED
        raise
    return code


def _call(arguments: Sequence[str]) -> int:
    output = sys.stdout
    try:
        for argument in arguments:
            try:
                argument.encode()
            except UnicodeEncodeError as error:
                raise UsageError(f"the argument {argument!a} is not UTF-8 text") from error
        # `main` returns the code of the Exit that a command raises, and else what the command returns: None.
        code: int | None = app.main(arguments, prog_name="runglass", standalone_mode=False)
    except SystemExit as ended:
        if sys.stdout is not output:
            # Where the reader of a help text has gone, click ends with 1, and has wrapped the stream.
            raise PipeClosed from ended
        return ended.code if isinstance(ended.code, int) else Exit.OK
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except RunglassError as error:
        complain(str(error))
        return exit_of(error)
    return Exit.OK if code is None else code


def _drop_output() -> None:
    # The interpreter flushes the buffer at its end, which would fail once more.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


class Interruptible:
    """A block in which Ctrl-C is a KeyboardInterrupt, where it would have ended the process."""

    def __init__(self) -> None:
        self._ends_at_once = signal.getsignal(signal.SIGINT) is end_at_once

    def __enter__(self) -> None:
        if self._ends_at_once:
            sys.unraisablehook = _unraisable
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *exc: object) -> None:
        if self._ends_at_once:
            signal.signal(signal.SIGINT, end_at_once)
            sys.unraisablehook = sys.__unraisablehook__


def is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C caused an error. Imports, and click around a command, raise another one from it."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__
    return False


def _unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        # Python has callbacks that cannot raise, in imports for one; the interrupt is sent again after them.
        # As a signal to this thread, which ends a wait as well.
        threading.Timer(AGAIN_S, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(unraisable)
