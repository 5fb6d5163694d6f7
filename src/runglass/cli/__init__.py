"""The terminal command `runglass`: arguments in, tables and exit codes out. Knows no HTTP and no SQL.

This module imports no library before `main` runs: the light installation has the package too, but neither
the terminal's libraries nor the server's, and `main` says so in one sentence. Before any import `main` sets a
handler for Ctrl-C, as Python's own would print a traceback from the middle of an import.
"""

# `_signal` is built in. `signal`, a module around it, takes milliseconds to load, in which Ctrl-C would still
# print a traceback.
import _signal  # type: ignore[import-not-found]
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: "Sequence[str] | None" = None) -> int:
    """Runs one command, `sys.argv` by default; returns its exit code as listed in `exit_codes.py`."""
    if sys.platform == "win32":
        sys.stderr.write("runglass: the command runs on Linux and macOS; on Windows, run it in WSL\n")
        return 1
    # A shell starts its background jobs with the signal ignored; that stays, and so does a caller's handler.
    if arguments is None and _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, end_at_once)
    from runglass.support.import_without_gc import loading

    try:
        with loading():
            from runglass.cli.app import run

        return run(arguments)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "runglass":
            raise
        sys.stderr.write(
            f"runglass: the command needs the library {missing!r}, which is not installed; "
            'get all that it needs with: pip install "runglass[server]"\n'
        )
        return 1


def end_at_once(signum: int, frame: object) -> None:
    """Handles Ctrl-C before a command has begun and after it has ended, when no work is open."""
    os._exit(130)
