"""What could not be sent, on disk: kept for when the server is back, or for the next recorder.

A file belongs to the process that holds its lock; one without an owner is taken over by the next recorder of
the same server and key. Knows nothing of what is in the bodies of requests that it keeps.
"""

import os
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

try:
    import fcntl
except ImportError:  # no such locks there: nothing is spooled
    fcntl = None  # type: ignore[assignment]

from runglass.client.core.connection import ServerConnection
from runglass.recorder.spans import report

MOST_BYTES = 64 << 20
"""Of all files in the folder."""
ENDING = ".spool"
_HEAD_BYTES = 17
"""Two numbers of 32 bits in hexadecimal: the size of the body and its checksum; and a line feed."""


def default_folder() -> Path | None:
    """Where a spool is, unless its user says otherwise; None for a user without a home."""
    try:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError:
        return None
    return Path(state) / "runglass" / "spool"


class Spool:
    """The bodies of requests to one server with one key: those of this process, and those without an owner.

    `is_drained` is False where there may be some that have not been sent.
    """

    def __init__(self, folder: str | os.PathLike[str], endpoint: ServerConnection) -> None:
        self._folder = Path(folder)
        # The key is not to be found out from the name.
        self._prefix = sha256(f"{endpoint.base_url}\0{endpoint.api_key}".encode()).hexdigest()[:16]
        self._file: int | None = None
        self._path: Path | None = None
        self.is_drained = not self._paths()

    def _paths(self) -> list[Path]:
        """The files of this server and key, whosever they are."""
        try:
            names = sorted(os.listdir(self._folder))
        except OSError:
            return []
        return [self._folder / each for each in names if each.startswith(f"{self._prefix}-")]

    def write(self, body: bytes) -> bool:
        """Appends a body; False where that is not possible, or all files together would be too large."""
        if fcntl is None:
            return False
        try:
            if self._file is None:
                self._open()
            assert self._file is not None
            taken = sum(each.stat().st_size for each in self._folder.glob(f"*{ENDING}"))
            if taken + _HEAD_BYTES + len(body) > MOST_BYTES:
                report(f"the spool {self._folder} is full: what the server does not take is dropped")
                return False
            record = b"%08x%08x\n%b" % (len(body), zlib.crc32(body), body)
            # A record that is torn is the last one: what comes behind it could not be read.
            end = os.lseek(self._file, 0, os.SEEK_END)
            if os.write(self._file, record) != len(record):
                os.ftruncate(self._file, end)
                return False
            os.fsync(self._file)
        except OSError as error:
            report(f"nothing can be written to the spool {self._folder}", error)
            return False
        self.is_drained = False
        return True

    def _open(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            path = self._folder / f"{self._prefix}-{os.getpid()}-{os.urandom(4).hex()}{ENDING}"
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND, 0o600)
            # Another recorder may have taken it for one without an owner, and deleted it.
            if _is_locked(file) and path.exists():
                self._file, self._path = file, path
                return
            os.close(file)

    def bodies(self) -> Iterator[bytes]:
        """What is in this file and in those without an owner; each is deleted once all of it was taken."""
        for path in self._paths():
            try:
                file = os.open(path, os.O_RDWR)
            except OSError:
                # Sent by another recorder meanwhile, or another user's.
                continue
            try:
                if path == self._path or _is_locked(file):
                    yield from _records(file, path)
                    path.unlink(missing_ok=True)
            finally:
                os.close(file)
            if path == self._path:
                self.let_go()

    def drop_own(self) -> None:
        """Deletes this file: all that is in it has been sent from memory."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self.let_go()

    def let_go(self) -> None:
        """Leaves the file to the next recorder; a forked process leaves it to its parent."""
        if self._file is not None:
            os.close(self._file)
        self._file = self._path = None


def _is_locked(file: int) -> bool:
    """Locks the file until it is closed; False where another process, or recorder, has done that."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _records(file: int, path: Path) -> Iterator[bytes]:
    """The bodies of a file, up to one that is torn."""
    at, size = 0, os.fstat(file).st_size
    while at < size:
        head = os.pread(file, _HEAD_BYTES, at)
        try:
            length, checksum = int(head[:8], 16), int(head[8:16], 16)
        except ValueError:
            length, checksum = size, 0
        body = os.pread(file, length, at + _HEAD_BYTES) if at + _HEAD_BYTES + length <= size else b""
        if not body or zlib.crc32(body) != checksum:
            report(f"the end of the spool {path} is torn, and is left out", f"{size - at:,} bytes")
            return
        yield body
        at += _HEAD_BYTES + length
