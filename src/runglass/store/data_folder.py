"""The folder of the data: for its owner's eyes alone, from the moment at which it is made."""

import logging
import stat
from pathlib import Path

_log = logging.getLogger(__name__)


def make_folder(path: Path) -> None:
    """Makes the folder, and those above it, where they are missing; only the owner may enter it.

    One that is there keeps its rights: its owner may want others to see it. Raises OSError.
    """
    # The mode goes with the call that makes it: between that and a later change, others could look.
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def make_file(path: Path) -> None:
    """Makes the file, readable and writable for its owner alone, where it is missing. Raises OSError."""
    path.touch(mode=0o600)


def warn_of_others(database: Path) -> None:
    """Logs a warning where others may read the database, or put another in its place. Raises OSError."""
    rights = stat.S_IMODE(database.stat().st_mode)
    if rights & 0o077:
        _log.warning(
            "others on this machine may read the database %r (mode %04o); chmod 600 keeps it private",
            str(database),
            rights,
        )
    folder = stat.S_IMODE(database.parent.stat().st_mode)
    if folder & 0o022 and not folder & stat.S_ISVTX:
        _log.warning(
            "others on this machine may change files in %r (mode %04o), the folder of the database; "
            "chmod 700 keeps it private",
            str(database.parent),
            folder,
        )
