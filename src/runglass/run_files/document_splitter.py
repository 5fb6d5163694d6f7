"""Splits a JSON document with a run into its parts while it comes in, without holding it.

The parts are found by quotes and brackets alone and handed out as the bytes that they are; whoever decodes
them finds what is wrong inside.
"""

import re
from collections.abc import Sequence

from runglass.errors import RunFileError

EVENTS, TRACE = b'"events"', b'"trace"'
MOST_DEEP = 10_000
_CLOSING = {b"{": b"}", b"[": b"]"}

# A quote alone begins a string whose end has not come yet.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|"'
_SHALLOW = re.compile(_STRING + rb"|[{}\[\],:]", re.DOTALL)
_DEEP = re.compile(_STRING + rb"|[{}\[\]]", re.DOTALL)


class DocumentSplitter:
    """Of an object: its members, of `events` each element by itself; `trace` is passed over.

    `members` are names and values before `events`, as JSON.
    """

    def __init__(self, data: bytes = b"") -> None:
        self.members: list[tuple[bytes, bytes]] = []
        self.is_complete = False
        self._buffer = data
        self._at = 0
        """How far the buffer has been looked at."""
        self._start = 0
        """Where in the buffer the part that goes on begins."""
        self._open = bytearray()
        """The brackets that are open, outermost first."""
        self._name: bytes | None = None

    @property
    def held_bytes(self) -> int:
        """How much is held: members, and of the part that goes on what has come."""
        return len(self._buffer) + sum(len(value) for _, value in self.members)

    def feed(self, data: bytes) -> Sequence[bytes]:
        """The events that are complete now. Raises RunFileError for what is no document with a run."""
        self._buffer += data
        events: list[bytes] = []
        while not self.is_complete:
            wanted = _DEEP if len(self._open) > self._level else _SHALLOW
            found = wanted.search(self._buffer, self._at)
            if found is None:
                self._at = len(self._buffer)
                break
            token = found[0]
            if token == b'"':
                self._at = found.start()
                break
            self._at = found.end()
            self._take(token, found.start(), events)
        if self.is_complete and self._buffer[self._at :].strip():
            raise RunFileError("there is more behind the end of the document")
        self._forget()
        return events

    def close(self) -> None:
        """Raises RunFileError where the document is not at its end."""
        if not self.is_complete:
            raise RunFileError("the document breaks off: its last bracket is missing")

    @property
    def _level(self) -> int:
        """The depth at which commas part what is handed out."""
        return 2 if self._name == EVENTS else 1

    def _take(self, token: bytes, at: int, events: list[bytes]) -> None:
        depth = len(self._open)
        if token in _CLOSING:
            self._begin(token)
        elif depth == 0:
            raise RunFileError("the document is no JSON object")
        elif token in b"}]":
            if _CLOSING[bytes(self._open[-1:])] != token:
                raise RunFileError(f"the document has a {token.decode()} that closes nothing")
            if depth <= self._level:
                self._end_part(at, events)
            self._open.pop()
            if depth == 2 and self._name == EVENTS:
                self._name = None
            self.is_complete = depth == 1
        elif token == b"," and depth == self._level:
            self._end_part(at, events)
        elif token == b":" and depth == 1:
            self._name, self._start = self._buffer[self._start : at].strip(), self._at

    def _begin(self, token: bytes) -> None:
        if not self._open and token != b"{":
            raise RunFileError("the document is no JSON object")
        if len(self._open) == MOST_DEEP:
            raise RunFileError(f"the document is nested more than {MOST_DEEP:,} levels deep")
        self._open += token
        if len(self._open) == 1 or (len(self._open) == 2 and self._name == EVENTS):
            self._start = self._at

    def _end_part(self, at: int, events: list[bytes]) -> None:
        part = self._buffer[self._start : at].strip()
        self._start = self._at
        if self._name == EVENTS and len(self._open) == 2:
            if part:
                events.append(part)
        elif self._name is not None:
            if self._name not in (EVENTS, TRACE):
                self.members.append((self._name, part))
            self._name = None

    def _forget(self) -> None:
        """Drops what has been handed out, and what is passed over."""
        gone = self._at if self._name == TRACE else min(self._start, self._at)
        self._buffer = self._buffer[gone:]
        self._at -= gone
        self._start = max(self._start - gone, 0)
