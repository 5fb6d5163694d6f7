"""Reads a file with a run piece by piece: its header, and each event as the bytes that it is.

A document and the header of lines are read alike: an object, which has `events` or is followed by them. Each
byte is looked at once: parts are found by quotes and brackets alone, and whoever decodes them finds what is
wrong inside. Members that are not known are passed over and never held. Whether an event is one, and whether
it belongs to the run, is not known here.
"""

import re
from collections.abc import Sequence

import msgspec

from runglass.errors import RunFileError
from runglass.run_files.header import FORMAT, FORMAT_VERSION, RunHeader, check_header

LARGEST_EVENT_BYTES = 32 << 20
LARGEST_HEADER_BYTES = 8 << 20
"""Flows are the largest part of a header, and smaller than this."""

_GZIP = b"\x1f\x8b"
_header_of = msgspec.json.Decoder(RunHeader)
_WANTED = "write the file with `runglass runs export`, as json or jsonl"

EVENTS, _BEHIND_EVENTS = b'"events"', b"]"
_OF_HEADER = frozenset(b'"%b"' % name.encode() for name in RunHeader.__struct_encode_fields__)
_HELD = _OF_HEADER | {EVENTS}
_KNOWN = _HELD | {b'"trace"'}
MOST_DEEP = 10_000
MOST_MEMBERS = 50
LONGEST_NAME_BYTES = 200

# Both are possessive: what has no end is not looked at from each of its positions.
_TEXT = rb'[^"\\]*+(?:\\.[^"\\]*+)*+'
_IN_STRING = re.compile(rb'%b("?)' % _TEXT, re.DOTALL)
# A quote alone begins a string whose end has not come yet.
_SHALLOW = re.compile(rb'"%b"|["{}\[\],:]' % _TEXT, re.DOTALL)
_DEEP = re.compile(rb'"%b"|["{}\[\]]' % _TEXT, re.DOTALL)


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
            members = b",".join(map(b"%b:%b".__mod__, document.header.items()))
            try:
                header = _header_of.decode(b"{%b}" % members)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise RunFileError(
                    f"the file does not begin with the header of a run ({error}): {_WANTED}"
                ) from error
            if header.format != FORMAT or header.format_version != FORMAT_VERSION:
                raise RunFileError(
                    f"the file has format {header.format!r:.60} version {header.format_version!r:.20}, and"
                    f" not {FORMAT!r} version {FORMAT_VERSION}: {_WANTED}"
                )
            check_header(header)
            self.header = header
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

    def _of_lines(self, unfinished: bytearray, data: bytes) -> Sequence[bytes]:
        end = data.rfind(b"\n") + 1
        lines = bytes(unfinished + data[:end]).split(b"\n") if end else []
        if end:
            unfinished.clear()
        unfinished += data[end:]
        _require_size(len(unfinished), LARGEST_EVENT_BYTES)
        return [stripped for line in lines if (stripped := line.strip())]


def _require_size(size: int, most: int) -> None:
    if size > most:
        raise RunFileError(f"an event, or the header, is larger than {most:,} bytes")


class DocumentSplitter:
    """Of an object: the members of a header, and of `events` each element by itself."""

    def __init__(self) -> None:
        self.header: dict[bytes, bytes] = {}
        """Names and values, as JSON."""
        self.has_events = False
        self.is_complete = False
        self.rest = bytearray()
        """What has come of the part that goes on; of a complete document what has come behind it."""
        self._at = 0
        """How far the rest has been looked at."""
        self._in_string = False
        self._depth = 0
        self._level = 1
        """The depth at which commas part what is handed out."""
        self._name: bytes | None = None
        self._known: set[bytes] = set()
        self._members = 0

    @property
    def has_begun(self) -> bool:
        """Whether the object's first bracket has come."""
        return self._depth > 0 or self.is_complete

    @property
    def held_bytes(self) -> int:
        """How much is held: the header, and of the part that goes on what has come."""
        return len(self.rest) + sum(map(len, self.header.values()))

    def feed(self, data: bytes) -> Sequence[bytes]:
        """The events that are complete now. Raises RunFileError for what is no document with a run."""
        self.rest += data
        events: list[bytes] = []
        while not self.is_complete and (token := self._next_token()):
            self._take(token, events)
        if self._name is None and not self.is_complete:
            self._at -= len(self.rest) - len(self.rest.lstrip())
            self.rest = self.rest.lstrip()
            self._require_name(self.rest)
        elif self.is_complete or self._name not in _HELD:
            self._drop()
        return events

    def close(self) -> None:
        """Raises RunFileError where the document is not at its end."""
        if not self.is_complete:
            raise RunFileError("the document is truncated: its last bracket is missing")

    def _next_token(self) -> bytes:
        """A string, a bracket, or at the level of parts a comma or colon; empty where none is complete."""
        if not self._in_string:
            found = (_DEEP if self._depth > self._level else _SHALLOW).search(self.rest, self._at)
            self._at = len(self.rest) if found is None else found.end()
            if found is None or found[0] != b'"':
                return b"" if found is None else found[0]
        string = _IN_STRING.match(self.rest, self._at)
        assert string is not None
        # Of an escape at the end the second half is still to come.
        self._at, self._in_string = string.end(), not string[1]
        return string[1]

    def _take(self, token: bytes, events: list[bytes]) -> None:
        if self._depth == 0:
            self._depth, before = 1, self._drop()
            if before.strip() != b"{":
                raise RunFileError("the document is no JSON object")
        elif token in (b"{", b"["):
            if self._depth == 1 and (self._name is None or (self._name == EVENTS and token == b"{")):
                raise RunFileError(f"the document has a {token.decode()} where none can be")
            if self._depth == MOST_DEEP:
                raise RunFileError(f"the document is nested more than {MOST_DEEP:,} levels deep")
            self._depth += 1
            if self._name == EVENTS and self._depth == 2:
                self.has_events, self._level = True, 2
                self._drop()
        elif token in (b"}", b"]"):
            if self._depth == self._level:
                self._end_part(events, is_last=True)
            self._depth -= 1
            self.is_complete = self._depth == 0
        elif token == b"," and self._depth == self._level:
            self._end_part(events, is_last=False)
        elif token == b":" and self._depth == 1:
            self._begin_member(self._drop()[:-1].strip())

    def _begin_member(self, name: bytes) -> None:
        self._members += 1
        if self._members > MOST_MEMBERS:
            raise RunFileError(f"the document has more than {MOST_MEMBERS} members")
        if self._name is not None:
            raise RunFileError("the document has a colon where none can be")
        self._require_name(name)
        if name in self._known:
            raise RunFileError(f"the document has two members {name.decode()}")
        if self.has_events and name in _OF_HEADER:
            raise RunFileError(f"the member {name.decode()} comes behind `events`, and the header before it")
        self._known |= _KNOWN & {name}
        self._name = name

    def _require_name(self, name: bytes | bytearray) -> None:
        """Raises RunFileError for what cannot be, or begin, the name of a member."""
        if name[:1] not in (b"", b'"', b"}"):
            raise RunFileError("the document is no JSON object")
        if len(name) > LONGEST_NAME_BYTES + 2:
            raise RunFileError(f"the name of a member is longer than {LONGEST_NAME_BYTES} bytes")

    def _end_part(self, events: list[bytes], *, is_last: bool) -> None:
        part = self._drop()[:-1].strip()
        if self._level == 2:
            if part:
                events.append(part)
            elif not is_last:
                raise RunFileError("`events` has a comma without an event")
            if is_last:
                self._level, self._name = 1, _BEHIND_EVENTS
            return
        if self._name is None and (part or not is_last):
            raise RunFileError("the document has a value without a name")
        if self._name == EVENTS:
            raise RunFileError("`events` is no list")
        if self._name in _OF_HEADER:
            self.header[self._name] = part
        self._name = None

    def _drop(self) -> bytes:
        """What has been looked at, which is held no longer."""
        seen, self._at = bytes(self.rest[: self._at]), 0
        del self.rest[: len(seen)]
        return seen
