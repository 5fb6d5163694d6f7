"""The terminal command `runglass`: arguments in, tables and exit codes out. Knows no HTTP and no SQL.

Nothing is imported here before `main` runs: the package is part of the light installation too, which has
neither the terminal's libraries nor the server's, and there it must say so in one sentence. And until it is
told otherwise, Python prints where in an import Ctrl-C met it: so the first thing is to tell it.
"""

# Built in, while `signal` around it takes some milliseconds to load, of those in which it would be too late.
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
    from runglass.cli.import_without_gc import loading

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
    """Takes Ctrl-C before a command has begun and after it has ended: there is nothing to put in order."""
    os._exit(130)
