"""Looks for texts in the log of a run that an SQLite file holds: event by event, in SQL."""

import sqlite3

from runglass.store.sqlite.query_index import Look
from runglass.store.text_query import SEARCHED_FIELDS, Progress, SearchedTexts
from runglass.wire.query import RunQuery

_FIELDS = " || ' ' || ".join(
    f"ifnull(nullif(json_quote(json_extract(data, '$.{path}')), 'null'), '')" for path in SEARCHED_FIELDS
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


class TextSearch:
    """The texts that a query looks for, and those that a run must not have."""

    def __init__(self, query: RunQuery) -> None:
        self._texts = SearchedTexts(query)
        self._patterns = [_parameter(pattern) for pattern in self._texts.patterns]

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
                verdict = self._texts.verdict(met)
                if verdict is not None:
                    return verdict
                if look.is_over:
                    return Progress(seq, met)
        finally:
            # An unfinished SELECT would hold its read transaction open, and with it the log of the file.
            rows.close()
        return self._texts.at_the_end(met)


def _parameter(pattern: bytes) -> str | bytes:
    """The text as SQLite is to have it: as bytes where it is long."""
    text = pattern.decode()
    return pattern if len(text) > _LONG else text


def _has_bytes(data: bytes, pattern: bytes) -> bool:
    # As texts of as many characters: among bytes, too, the search would begin anew at each.
    return pattern.decode("latin-1") in data.decode("latin-1")
