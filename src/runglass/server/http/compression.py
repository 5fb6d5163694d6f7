"""Answers compressed with gzip, part by part: for those that are large and say the same again and again."""

import re
import zlib

LEVEL = 1
"""Columns of numbers become a sixth; more would take twice the time and become a seventh."""
_GZIP = 16 + zlib.MAX_WBITS
_ACCEPTED = re.compile(r"(?:^|,)\s*(?:x-)?gzip\s*(?:;\s*q\s*=\s*([0-9.]+)\s*)?(?=,|$)", re.IGNORECASE)


def accepts_gzip(accept_encoding: str | None) -> bool:
    """Whether a caller that sends this header can read gzip."""
    found = _ACCEPTED.search(accept_encoding or "")
    return found is not None and (found[1] is None or found[1].strip("0.") != "")


class Gzip:
    """One gzip stream."""

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP)

    def add(self, data: bytes) -> bytes:
        """The compressed bytes that can be sent after this part; may be empty."""
        return self._compressor.compress(data)

    def end(self) -> bytes:
        """The end of the stream."""
        return self._compressor.flush()
