"""Server-Sent Events as bytes: encode frames, decode a stream chunk by chunk.

Server and client share this file, so that the format of a frame is in one place. It does no I/O and must not
know what the data means: the JSON bytes pass through untouched.

The decoder follows the HTML standard, "Interpreting an event stream". Its limit on the size of a frame is an
addition, and so is the refusal of a `retry` of more than 18 digits.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

import msgspec

PING = b": ping\n\n"
RETRY = b"retry: 1000\n\n"

_FRAME = b"id: %d\nevent: %b\ndata: %b\n\n"
_UNNUMBERED_FRAME = b"event: %b\ndata: %b\n\n"


def frame(seq: int, event: str, data: bytes) -> bytes:
    """One event as bytes of a stream; `data` is one line of JSON.

    Raises ValueError if `data` or `event` contains a line end, or `event` is empty.
    """
    if b"\n" in data or b"\r" in data:
        raise ValueError(f"data of event {seq} contains a line end: encode it as one line of JSON")
    return _FRAME % (seq, _event_name(event), data)


def unnumbered_frame(event: str, data: bytes) -> bytes:
    """A frame without an id, after which no stream can be resumed. Raises as `frame` does."""
    if b"\n" in data or b"\r" in data:
        raise ValueError(f"data of {event!r} contains a line end: encode it as one line of JSON")
    return _UNNUMBERED_FRAME % (_event_name(event), data)


def position_frame(seq: int) -> bytes:
    """No event, but what a stream is resumed after from now on."""
    return b"id: %d\n\n" % seq


def frames(rows: Sequence[tuple[int, str, bytes]]) -> bytes:
    """The rows `(seq, event, data)` as one block; about twice as fast as joining `frame` of each."""
    block = b"".join([_FRAME % (seq, _event_name(event), data) for seq, event, data in rows])
    if block.count(b"\n") != _FRAME.count(b"\n") * len(rows) or b"\r" in block:
        for row in rows:  # one check of the whole block is cheaper; `frame` names the row at fault
            frame(*row)
    return block


@lru_cache(maxsize=256)
def _event_name(event: str) -> bytes:
    if not event or "\n" in event or "\r" in event:
        raise ValueError(f"event name {event!r} cannot be sent: use a name of one line")
    return event.encode()


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A dispatched event; `id` is the last one the stream has named, in this event or before it."""

    id: str
    event: str
    data: bytes


class FrameTooLarge(ValueError):
    """A frame is larger than the decoder was told to accept."""


# A block as the functions above write frames, else any other block up to its blank line. The first form
# allows only printable ASCII in id and event, so that NUL and malformed UTF-8 go line by line; the second is
# possessive, or it would keep state for each line of a long block.
_BLOCK = re.compile(rb"(?:id: ([ -~]+)\n)?event: ([ -~]+)\ndata: ([^\n]*+)\n\n|((?:[^\n]+\n)*+\n)")
_LINE = re.compile(rb"([^:\n]*)(?:: ?([^\n]*))?\n")
# Looking back behind the name, not before it, lets the search skip to the next name.
_RETRY = re.compile(rb"retry:(?<![^\n]retry:) ?([0-9]{1,18})\n")
_BOM = b"\xef\xbb\xbf"


class Decoder:
    """Turns the bytes of one stream into frames, however they are cut into chunks, in linear time.

    A frame counts from one blank line to the next with its names and line ends; more than `max_frame_bytes`
    raises FrameTooLarge and ends the decoder. An event without its blank line at the end of a stream is
    dropped by dropping the decoder.
    """

    def __init__(self, max_frame_bytes: int = 64 * 1024 * 1024) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._opening: bytes | None = b""
        self._after_cr = False
        self._pending = bytearray()
        """The block that has not ended yet."""
        self._line_at = 0
        """Where its last line begins."""
        self._id = ""
        self.last_event_id = ""
        """The `Last-Event-ID` to send when the stream is opened again; empty if there is none."""
        self.retry_ms: int | None = None
        """How long the server asked to wait before opening the stream again, if it did."""
        self._failure: str | None = None

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that end in this chunk.

        Raises FrameTooLarge, now and on every later call. The frames before it in the same chunk are not
        returned and `last_event_id` does not count them, so that opening the stream again loses nothing.
        """
        if self._failure is not None:
            raise FrameTooLarge(self._failure)
        text: bytes | bytearray = self._with_bare_line_feeds(self._without_bom(chunk))
        begun = len(self._pending)
        if begun:
            self._pending += text
            text = self._pending
        else:
            text = text.lstrip(b"\n")
        end = text.rfind(b"\n\n", max(begun - 1, 0))
        end = 0 if end < 0 else end + 2
        try:
            found = self._read_blocks(text, end)
            if begun:
                del self._pending[:end]
            elif end < len(text):
                self._pending += text[end:]
            self._require_room(len(self._pending))
        except FrameTooLarge as error:
            self._failure = str(error)
            raise
        self.last_event_id = self._id
        if end:
            begun = self._line_at = 0
        # What is said of `retry` counts from its line on, all else from the blank line on.
        if line_at := self._pending.rfind(b"\n", begun) + 1:
            self._read_retry(_RETRY.findall(self._pending, self._line_at, line_at))
            self._line_at = line_at
        return found

    def _without_bom(self, chunk: bytes) -> bytes:
        if self._opening is None:
            return chunk
        opening = self._opening + chunk
        if len(opening) < len(_BOM) and _BOM.startswith(opening):
            self._opening = opening
            return b""
        self._opening = None
        return opening.removeprefix(_BOM)

    def _with_bare_line_feeds(self, text: bytes) -> bytes:
        # A CR at the end of a chunk ends its line at once, or a stream with bare CRs would lag one event
        # behind; an LF that opens the next chunk then belongs to it.
        if not text:
            return text
        joins_cr = self._after_cr and text.startswith(b"\n")
        self._after_cr = text.endswith(b"\r")
        if joins_cr:
            text = text[1:]
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return text

    def _read_blocks(self, text: bytes | bytearray, end: int) -> list[Frame]:
        found: list[Frame] = []
        is_large = end > self._max_frame_bytes
        for event_id, event, data, other in _BLOCK.findall(text, 0, end):
            if is_large:
                names = len(b"id: \nevent: \ndata: \n" if event_id else b"event: \ndata: \n")
                size = names + len(event_id) + len(event) + len(data)
                self._require_room(len(other) - 1 if other else size)
            if other:
                found += self._read_lines(other)
                continue
            if event_id:
                self._id = event_id.decode()
            found.append(Frame(self._id, event.decode(), data))
        return found

    def _read_lines(self, block: bytes) -> list[Frame]:
        """The frame of a block, if it has data."""
        event, data = "", []
        for line in _LINE.finditer(block):
            name, value = line.groups(b"")
            match name:
                case b"data":
                    data.append(value)
                case b"event":
                    event = value.decode(errors="replace")
                case b"id" if b"\0" not in value:
                    self._id = value.decode(errors="replace")
        self._read_retry(_RETRY.findall(block))
        return [Frame(self._id, event or "message", b"\n".join(data))] if data else []

    def _read_retry(self, told: list[bytes]) -> None:
        if told:
            self.retry_ms = int(told[-1])

    def _require_room(self, size: int) -> None:
        if size > self._max_frame_bytes:
            raise FrameTooLarge(
                f"the frame after event id {self._id[:64]!r} is larger than the limit of "
                f"{self._max_frame_bytes} bytes ({size} seen), and this decoder is at its end: "
                f"open the stream again with a new one and a larger max_frame_bytes"
            )
