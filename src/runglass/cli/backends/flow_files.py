"""Flow files on disk."""

from pathlib import Path
from typing import TYPE_CHECKING

from runglass.errors import FlowFileError, Problem

if TYPE_CHECKING:
    from runglass.flows.parser import CheckedFlow


def read_flow(file: Path) -> "CheckedFlow":
    """The flow in a file, and warnings. Raises FlowFileError, also for a file that cannot be read."""
    # Imported here: reading YAML takes a library that most commands can do without.
    from runglass.flows.parser import check_flow

    try:
        text = file.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise FlowFileError([Problem(f"the file cannot be read: {reason}")], file=str(file)) from error
    return check_flow(text, file=str(file))
