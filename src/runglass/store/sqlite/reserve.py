"""Room on the disk of an SQLite file that is kept for removals: to delete rows takes room, too, in the log.

A file beside the database. It is given up for a removal that meets a full disk, and made anew before anything
else is written: so it is used by removals alone.
"""

import logging
import os
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

from runglass.store.data_folder import make_file

log = logging.getLogger(__name__)

RESERVE_BYTES = 16 << 20
"""Four times the log at which SQLite moves it into the file, and many times a bite of a removal."""


def is_full(error: Exception) -> bool:
    """Whether the disk has no room for what SQLite was to write."""
    # The shared memory of the log is a file beside it.
    full = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) in full


def reason(error: Exception) -> str:
    """What SQLite says of its error, and of a full disk also what to do: it calls some of it an I/O error."""
    return f"{error}: the disk is full; make room on it" if is_full(error) else str(error)


class Reserve:
    """The reserve of a database. `is_given_up` from when a removal needed it until it is whole again."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f"{database.name}-reserve")
        size = self._size()
        self.is_given_up = size is not None and size < RESERVE_BYTES

    def __str__(self) -> str:
        return repr(str(self._path))

    @property
    def is_short(self) -> bool:
        """Whether there is no room beside it for as much again, as far as the file system tells."""
        try:
            return self.is_given_up or shutil.disk_usage(self._path.parent).free < RESERVE_BYTES
        except OSError:
            return False

    def make_room_for(self, db: sqlite3.Connection) -> None:
        """Before the first statement, which takes room, too: on a full disk that of the reserve."""
        try:
            db.execute("PRAGMA user_version").fetchone()
        except sqlite3.Error as error:
            if not is_full(error) or not self.give_up():
                raise

    def take(self) -> bool:
        """Makes the file whole; False, and it takes no room, where the disk has not enough of it."""
        try:
            if (self._size() or 0) < RESERVE_BYTES:
                make_file(self._path)
                with self._path.open("r+b") as file:
                    if hasattr(os, "posix_fallocate"):
                        os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
                    else:
                        # macOS: a file that was only made longer would hold no room.
                        file.write(bytes(RESERVE_BYTES))
        except OSError:
            with suppress(OSError):
                if self.is_given_up:
                    os.truncate(self._path, 0)
                else:
                    # An empty one would say to the next start that it was given up.
                    self._path.unlink()
            return False
        self.is_given_up = False
        return True

    def give_up(self) -> bool:
        """Leaves its room to what is written next; False where it had none, or is not ours to give."""
        try:
            if not self._size():
                return False
            os.truncate(self._path, 0)
        except OSError as error:
            log.warning(
                "the disk is full, and its reserve %s cannot be given up for removals: %s", self, error
            )
            return False
        self.is_given_up = True
        log.info("the disk is full: its reserve %s is given up for removals", self)
        return True

    def _size(self) -> int | None:
        """None where there is no such file, or none that can be looked at."""
        try:
            return self._path.stat().st_size
        except OSError:
            return None
