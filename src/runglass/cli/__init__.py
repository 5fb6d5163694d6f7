"""The terminal command `runglass`.

Nothing is imported here before `main` runs: the package is part of the light installation too, which has
neither the terminal's libraries nor the server's, and there it must say so in one sentence.
"""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command, `sys.argv` by default; returns its exit code as listed in `exits.py`."""
    from runglass.cli.loading import loading

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
