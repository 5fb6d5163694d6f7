"""The folder of the data: for its owner's eyes alone, and for one process at a time that runs flows."""

import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from runglass.config.settings import SettingsError
from runglass.errors import RunglassError

_log = logging.getLogger(__name__)

LEAVING_S = 2.0
"""How long a killed process may keep its lock: one that it had just begun has the lock, too, for a moment."""


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


class DataInUse(RunglassError):
    """Another process runs flows on the same data folder."""


@contextmanager
def exclusive(database: Path) -> Iterator[None]:
    """No other process runs flows on this database until the block ends.

    Waits up to `LEAVING_S` seconds for one that is going away. Raises DataInUse, SettingsError.
    """
    address_file = _address_file(database)
    with ExitStack() as stack:
        try:
            make_folder(database.parent)
            stack.enter_context(_lock_of(database, patience_s=LEAVING_S))
            # Of a process that was killed.
            address_file.unlink(missing_ok=True)
        except Timeout as error:
            raise _in_use(database) from error
        except OSError as error:
            raise _unusable(database, error) from error
        try:
            yield
        finally:
            # One that stays misleads nobody: the lock is what tells.
            with suppress(OSError):
                address_file.unlink(missing_ok=True)


@contextmanager
def watching(database: Path) -> Iterator[Callable[[], bool]]:
    """Until the block ends, others know that a `watch` records on this database.

    Gives whether it is the only one. Raises SettingsError.
    """
    import fcntl

    path = database.with_name(database.name + ".watching")
    try:
        make_folder(database.parent)
        file = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise _unusable(database, error) from error

    def is_alone() -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            fcntl.flock(file, fcntl.LOCK_SH)
        return True

    try:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield is_alone
    finally:
        os.close(file)


class Announced(NamedTuple):
    """A server of a database, and whether it ends with the program of a `watch`."""

    address: str
    is_of_watch: bool = False


def announce(database: Path, server: Announced) -> None:
    """Tells commands of the server that has this database, until it has it no more."""
    file = _address_file(database)
    try:
        make_file(file)
        file.write_text(server.address + " watch" * server.is_of_watch, "utf-8")
    except OSError as error:
        # A server is to start on a full disk, too.
        _log.warning("commands do not find this server: its address cannot be written: %s", error)


def running_server(database: Path) -> Announced | None:
    """The server that has this database; None where no process runs flows on it.

    Raises DataInUse where one does that has no address.
    """
    if not database.exists():
        return None
    lock = _lock_of(database, patience_s=0)
    try:
        lock.acquire()
    except Timeout as error:
        with suppress(FileNotFoundError):
            # Empty for as long as it takes to write it.
            if words := _address_file(database).read_text("utf-8").split():
                return Announced(words[0], is_of_watch=words[1:] == ["watch"])
        raise _in_use(database) from error
    # Whoever had the address is gone: the lock is what tells.
    lock.release()
    return None


def _lock_of(database: Path, *, patience_s: float) -> FileLock:
    # A lock of the operating system: it is gone when its process is, however that ended.
    path = database.with_name(database.name + ".lock")
    return FileLock(path, mode=0o600, timeout=patience_s, thread_local=False)


def _address_file(database: Path) -> Path:
    return database.with_name(database.name + ".address")


def _unusable(database: Path, error: OSError) -> SettingsError:
    return SettingsError(f"the data folder {str(database.parent)!r} cannot be used: {error}")


def _in_use(database: Path) -> DataInUse:
    return DataInUse(f"another process runs flows on {str(database)!r}; stop it or use another --data folder")
