"""Files that commands write: new ones, and whole or not there at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from runglass.cli.exit_codes import UsageError


@contextmanager
def new_file(file: Path) -> Iterator[IO[bytes]]:
    """A new file, which only its owner may read; it is gone again where the block fails. Raises UsageError.

    Half of a run would pass for the whole.
    """
    try:
        written = os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o600), "wb")
    except OSError as error:
        raise UsageError(
            f"{str(file)!r} cannot be written as a new file: {error.strerror or error}"
        ) from error

    try:
        with written:
            yield written
    except BaseException:
        file.unlink(missing_ok=True)
        raise
