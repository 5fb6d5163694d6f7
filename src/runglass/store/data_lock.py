"""The lock on a database: one process at a time runs flows on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from runglass.config.settings import SettingsError
from runglass.errors import RunglassError
from runglass.store.data_folder import make_folder

LEAVING_S = 2.0
"""How long a killed process may keep its lock: one that it had just begun has the lock, too, for a moment."""


class DataInUse(RunglassError):
    """Another process runs flows on the same data folder."""


@contextmanager
def exclusive(database: Path) -> Iterator[None]:
    """No other process runs flows on this database until the block ends.

    Waits up to `LEAVING_S` seconds for one that is going away. Raises DataInUse, SettingsError.
    """
    # A lock of the operating system: it is gone when its process is, however that ended.
    path = database.with_name(database.name + ".lock")
    lock = FileLock(path, mode=0o600, timeout=LEAVING_S, thread_local=False)
    try:
        make_folder(database.parent)
        lock.acquire()
    except Timeout as error:
        raise DataInUse(
            f"another process runs flows on {str(database)!r}; stop it or use another --data folder"
        ) from error
    except OSError as error:
        raise SettingsError(f"the data folder {str(database.parent)!r} cannot be used: {error}") from error
    try:
        yield
    finally:
        lock.release()
