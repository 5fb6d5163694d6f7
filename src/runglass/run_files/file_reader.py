"""Reads a file with a run piece by piece: its header, and each event as the bytes that it is.

Which of the two formats it is shows in its first line. Whether an event is one, and whether it belongs to the
run, is not known here.
"""

from collections.abc import Sequence

import msgspec

from runglass.errors import RunFileError
from runglass.run_files.document_splitter import DocumentSplitter
from runglass.run_files.header import FORMAT, FORMAT_VERSION, RunHeader, check_header

LARGEST_EVENT_BYTES = 32 << 20
LARGEST_HEADER_BYTES = 8 << 20
"""Flows are the largest part of a header, and smaller than this."""

_GZIP = b"\x1f\x8b"
_members_of = msgspec.json.Decoder(dict[str, msgspec.Raw])
_header_of = msgspec.json.Decoder(RunHeader)


class RunFileReader:
    """Takes the bytes of a file in the order in which they come. `header` is None until it is known."""

    def __init__(self) -> None:
        self.header: RunHeader | None = None
        self._rest = b""
        self._document: DocumentSplitter | None = None

    def feed(self, data: bytes) -> Sequence[bytes]:
        """The events that are complete now. Raises RunFileError."""
        return self._take(data, is_end=False)

    def close(self) -> Sequence[bytes]:
        """The events that the end of the file completes. Raises RunFileError for a file that breaks off."""
        # The line break at the end may be missing.
        events = self._take(b"\n", is_end=True)
        if self._document is not None:
            self._document.close()
        return events

    def _take(self, data: bytes, *, is_end: bool) -> Sequence[bytes]:
        if self._document is not None:
            return self._of_document(self._document, data)
        self._rest += data
        if self.header is None:
            self._begin(is_end=is_end)
        if self._document is not None:
            data, self._rest = self._rest, b""
            return self._of_document(self._document, data)
        return () if self.header is None else self._of_lines()

    def _begin(self, *, is_end: bool) -> None:
        """Finds out which format the file has, if that shows by now: that of lines begins with a header."""
        if self._rest.startswith(_GZIP):
            raise RunFileError("the file is compressed; send it as `gunzip` leaves it")
        line, found, rest = self._rest.partition(b"\n")
        if not found and len(self._rest) <= LARGEST_HEADER_BYTES:
            return
        if is_end and not self._rest.strip():
            raise RunFileError(f"the file is empty: {_WANTED}")
        try:
            members = _members_of.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            members = None
        if members is None or "events" in members:
            self._document = DocumentSplitter()
        else:
            self.header, self._rest = _header(line), rest

    def _of_lines(self) -> Sequence[bytes]:
        *lines, self._rest = self._rest.split(b"\n")
        _require_size(len(self._rest))
        return [stripped for line in lines if (stripped := line.strip())]

    def _of_document(self, document: DocumentSplitter, data: bytes) -> Sequence[bytes]:
        events = document.feed(data)
        if self.header is None and (events or document.is_complete):
            members = [b"%b:%b" % member for member in document.members]
            self.header = _header(b"{%b}" % b",".join(members))
        _require_size(document.held_bytes)
        return events


_WANTED = "write the file with `runglass runs export`, as json or jsonl"


def _require_size(size: int) -> None:
    if size > LARGEST_EVENT_BYTES:
        raise RunFileError(f"an event, or the header, is larger than {LARGEST_EVENT_BYTES:,} bytes")


def _header(data: bytes) -> RunHeader:
    try:
        header = _header_of.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RunFileError(
            f"the file does not begin with the header of a run ({error}): {_WANTED}"
        ) from error
    if header.format != FORMAT or header.format_version != FORMAT_VERSION:
        raise RunFileError(
            f"the file has format {header.format!r:.60} version {header.format_version!r:.20}, and not"
            f" {FORMAT!r} version {FORMAT_VERSION}: {_WANTED}"
        )
    check_header(header)
    return header
