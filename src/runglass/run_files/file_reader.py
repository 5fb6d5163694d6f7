"""Reads a file with a run piece by piece: its header, and each event as the bytes that it is.

A document and the header of lines are read alike: an object, which has `events` or is followed by them.
Whether an event is one, and whether it belongs to the run, is not known here.
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
_header_of = msgspec.json.Decoder(RunHeader)


class RunFileReader:
    """Takes the bytes of a file in the order in which they come. `header` is None until it is known."""

    def __init__(self) -> None:
        self.header: RunHeader | None = None
        self._document = DocumentSplitter()
        self._lines: bytearray | None = None
        """Of a file of lines the one that goes on."""

    def feed(self, data: bytes) -> Sequence[bytes]:
        """The events that are complete now. Raises RunFileError."""
        if self._lines is not None:
            return self._of_lines(self._lines, data)
        document = self._document
        if not document.has_begun and data.startswith(_GZIP):
            raise RunFileError("the file is compressed; send it as `gunzip` leaves it")
        events = document.feed(data)
        if self.header is None and (document.has_events or document.is_complete):
            self.header = _header(b"{%b}" % b",".join(map(b"%b:%b".__mod__, document.header.items())))
        _require_size(
            document.held_bytes, LARGEST_HEADER_BYTES if self.header is None else LARGEST_EVENT_BYTES
        )
        if document.is_complete and not document.has_events:
            self._lines = bytearray()
            return self._of_lines(self._lines, bytes(document.rest))
        if document.is_complete and document.rest.strip():
            raise RunFileError("there is more behind the end of the document")
        return events

    def close(self) -> Sequence[bytes]:
        """The events that the end of the file completes. Raises RunFileError for a file that breaks off."""
        # The line break at the end may be missing.
        events = self.feed(b"\n")
        if not self._document.has_begun:
            raise RunFileError(f"the file is empty: {_WANTED}")
        self._document.close()
        return events

    def _of_lines(self, begun: bytearray, data: bytes) -> Sequence[bytes]:
        end = data.rfind(b"\n") + 1
        lines = bytes(begun + data[:end]).split(b"\n") if end else []
        if end:
            begun.clear()
        begun += data[end:]
        _require_size(len(begun), LARGEST_EVENT_BYTES)
        return [stripped for line in lines if (stripped := line.strip())]


_WANTED = "write the file with `runglass runs export`, as json or jsonl"


def _require_size(size: int, most: int) -> None:
    if size > most:
        raise RunFileError(f"an event, or the header, is larger than {most:,} bytes")


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
