"""What a search for runs has in each store: its time, its places, its texts, and how far it has come.

Capital and small letters of ASCII are the same in a text. A log may be too long for one request: the search
then says which event it has come to, and which of the texts it has met, and goes on from there.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import msgspec

from runglass.store.query_condition import SearchSql
from runglass.store.records import ListPosition
from runglass.store.statements import Steps, fetch
from runglass.wire.query import RunQuery, first_id

ABOVE_ALL = "~"
"""Comes after every id."""
SEARCHED_FIELDS = (
    "inputData",
    "output",
    "outputData",
    "result",
    "error",
    "reason",
    "modelCall.request",
    "modelCall.response",
    "toolCallMessages",
    "blockOverrides",
    "inputOverrides",
)
"""Where events have content. Fields that repeat what another one has are left out."""


class SearchLimits(NamedTuple):
    """How far one request searches for runs."""

    look_s: float = 0.03
    """So long it looks at rows that may not be what it wants."""
    count_s: float = 0.1
    """So long it counts runs."""
    first_rows: int = 100
    """Rows are looked at in pieces: in the first one so many, and as many as are wanted."""
    most_groups: int = 4000
    """Looks into the index of groups, some microseconds each; a query that needs more looks at all rows."""


USUAL = SearchLimits()


class SearchedTexts:
    """The texts that a run must have, and must not have, each with its bit in `ListPosition.met`.

    `patterns` has them as they stand inside strings of JSON, in small letters.
    """

    def __init__(self, query: RunQuery, own: SearchSql) -> None:
        terms = query.of_field("text")
        self.patterns = [msgspec.json.encode(term.words[0])[1:-1].lower() for term in terms]
        self._wanted = sum(1 << number for number, term in enumerate(terms) if not term.negated)
        self._unwanted = sum(1 << number for number, term in enumerate(terms) if term.negated)
        self._events, self._values = own.events(self.patterns)

    @property
    def is_needed(self) -> bool:
        """Whether there are any."""
        return bool(self.patterns)

    def meets(self, run_no: int, begun: ListPosition, look: Look) -> Steps[bool | ListPosition]:
        """Whether the run meets the terms; or how far its log was searched when `look` was over."""
        run_id, seq, met = begun
        while rows := (yield fetch(self._events, run_no=run_no, seq=seq, **self._values)):
            for _, data in rows:
                met |= 0 if data is None else self._met_in(data)
                if met & self._unwanted:
                    return False
                if not self._unwanted and met == self._wanted:
                    return True
            seq = rows[-1][0]
            if look.is_over:
                return ListPosition(run_id, seq, met)
        return met & self._wanted == self._wanted

    def _met_in(self, event: bytes) -> int:
        """The bits of the texts that the content of an event has."""
        try:
            fields = _fields(event)
            call = _fields(fields["modelCall"]) if "modelCall" in fields else {}
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return 0
        fields |= {f"modelCall.{name}": value for name, value in call.items()}
        found = [bytes(fields[name]) for name in SEARCHED_FIELDS if name in fields]
        content = b" ".join(each for each in found if each != b"null").lower()
        return sum(1 << number for number, pattern in enumerate(self.patterns) if pattern in content)


def _fields(data: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(data, type=dict[str, msgspec.Raw] | None) or {}


class Look:
    """The time that one request has for looking at rows. The first piece is always looked at."""

    def __init__(self, limits: SearchLimits, seconds: float) -> None:
        self.limits = limits
        self._until_s = time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._until_s


def bounds_of(query: RunQuery) -> tuple[str, str]:
    """The lowest id of a run of the query, and one that is above all of them."""
    since_ms, until_ms = query.created_bounds_ms()
    return first_id(since_ms) if since_ms else "", ABOVE_ALL if until_ms is None else first_id(until_ms)
