"""Looks for texts in what is kept of a run: in the fields of its events that have content.

Capital and small letters of ASCII are the same. A log may be too long for one request: the search then says
which event it has come to, and which of the texts it has met, and goes on from there.
"""

import sqlite3
from typing import NamedTuple

import msgspec

from runglass.run_query import RunQuery
from runglass.store.sqlite.query_condition import folded
from runglass.store.sqlite.query_index import Look

_CONTENT = (
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

_FIELDS = " || ' ' || ".join(
    f"ifnull(nullif(json_quote(json_extract(data, '$.{path}')), 'null'), '')" for path in _CONTENT
)
# First the bytes as they are: few events have the text anywhere, and only those are read as JSON. LIKE would
# begin anew at each character: two thousand times `a` and a `b` in a large event, and it takes 0.3 s.
_HAS = (
    "(instr(lower(CAST(data AS TEXT)), ?) > 0 AND CASE WHEN json_valid(CAST(data AS TEXT)) THEN"
    f" instr(lower({_FIELDS.replace('(data', '(CAST(data AS TEXT)')}), ?) > 0 ELSE 0 END)"
)
# So does `instr`, though ten times as fast: no matter for a short text, and Python looks for the others.
_HAS_LONG = _HAS.replace("instr(lower(", "has_bytes(CAST(lower(").replace("), ?) > 0", ") AS BLOB), ?)")
_LONG = 64


class Progress(NamedTuple):
    """How far the log of a run was searched: up to event `seq`, with the texts met as bits of `met`."""

    seq: int = 0
    met: int = 0


class TextSearch:
    """The texts that a query looks for, and those that a run must not have."""

    def __init__(self, query: RunQuery) -> None:
        terms = query.of_field("text")
        self._patterns = [_in_json(term.words[0]) for term in terms]
        self._wanted = sum(1 << number for number, term in enumerate(terms) if not term.negated)
        self._unwanted = sum(1 << number for number, term in enumerate(terms) if term.negated)

    @property
    def is_needed(self) -> bool:
        return bool(self._patterns)

    def meets(self, db: sqlite3.Connection, run_no: int, progress: Progress, look: Look) -> bool | Progress:
        """Whether the run meets the terms; or how far it was searched when `look` was over."""
        seq, met = progress
        db.create_function("has_bytes", 2, _has_bytes, deterministic=True)
        columns = ", ".join(_HAS_LONG if isinstance(each, bytes) else _HAS for each in self._patterns)
        sql = f"SELECT seq, {columns} FROM event WHERE run_no = ? AND seq > ? ORDER BY seq"
        patterns = [pattern for pattern in self._patterns for _ in range(2)]
        rows = db.execute(sql, (*patterns, run_no, seq))
        try:
            for seq, *found in rows:
                met |= sum(1 << number for number, has in enumerate(found) if has)
                if met & self._unwanted:
                    return False
                if not self._unwanted and met & self._wanted == self._wanted:
                    return True
                if look.is_over:
                    return Progress(seq, met)
        finally:
            # An unfinished SELECT would hold its read transaction open, and with it the log of the file.
            rows.close()
        return met & self._wanted == self._wanted


def _in_json(text: str) -> str | bytes:
    """The text as it stands inside a string of JSON, in small letters; as bytes where it is long."""
    pattern = folded(msgspec.json.encode(text)[1:-1].decode())
    return pattern.encode() if len(pattern) > _LONG else pattern


def _has_bytes(data: bytes, pattern: bytes) -> bool:
    # As texts of as many characters: among bytes, too, the search would begin anew at each.
    return pattern.decode("latin-1") in data.decode("latin-1")
