"""Looks for texts in the log of a run that PostgreSQL holds: piece by piece."""

import msgspec

from runglass.store.postgres.connections import Db
from runglass.store.postgres.query_index import Look
from runglass.store.text_query import SEARCHED_FIELDS, Progress, SearchedTexts
from runglass.wire.query import RunQuery

_PIECE_ROWS = 200
_PIECE_BYTES = 1 << 20
# First the bytes as they are, in the database: few events have the text anywhere, and only those are sent and
# read as JSON. Bytes that are not ASCII are compared as escapes, so that any bytes can be looked at.
_EVENTS = (
    "SELECT seq, CASE WHEN EXISTS (SELECT FROM unnest($5::text[]) AS text"
    """ WHERE strpos(lower(encode(data, 'escape') COLLATE "C"), text) > 0) THEN data END FROM ("""
    "SELECT seq, data, sum(length(data)) OVER (ORDER BY seq) - length(data) AS before"
    " FROM (SELECT seq, data FROM event WHERE run_no = $1 AND seq > $2 ORDER BY seq LIMIT $3) AS rows"
    ") AS sized WHERE before < $4 ORDER BY seq"
)


class TextSearch:
    """The texts that a query looks for, and those that a run must not have."""

    def __init__(self, query: RunQuery) -> None:
        self._texts = SearchedTexts(query)
        self._escaped = [_escaped(pattern) for pattern in self._texts.patterns]

    @property
    def is_needed(self) -> bool:
        return bool(self._escaped)

    async def meets(self, db: Db, run_no: int, progress: Progress, look: Look) -> bool | Progress:
        """Whether the run meets the terms; or how far it was searched when `look` was over."""
        seq, met = progress
        while True:
            rows = await db.fetch(_EVENTS, run_no, seq, _PIECE_ROWS, _PIECE_BYTES, self._escaped)
            for number, data in rows:
                seq = number
                if data is not None:
                    met |= self._met_in(data)
                verdict = self._texts.verdict(met)
                if verdict is not None:
                    return verdict
            if not rows:
                return self._texts.at_the_end(met)
            if look.is_over:
                return Progress(seq, met)

    def _met_in(self, data: bytes) -> int:
        content = _content_of(data).lower()
        return sum(1 << number for number, pattern in enumerate(self._texts.patterns) if pattern in content)


def _content_of(data: bytes) -> bytes:
    """The fields of the event with content, as JSON, with a space between."""
    try:
        fields = _fields(data)
        call = _fields(fields["modelCall"]) if "modelCall" in fields else {}
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return b""
    fields |= {f"modelCall.{name}": value for name, value in call.items()}
    found = [bytes(fields[name]) for name in SEARCHED_FIELDS if name in fields]
    return b" ".join(each for each in found if each != b"null")


def _fields(data: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(data, type=dict[str, msgspec.Raw] | None) or {}


def _escaped(data: bytes) -> str:
    """The bytes as PostgreSQL's format `escape` writes them."""
    return "".join(
        "\\\\" if byte == 0x5C else f"\\{byte:03o}" if byte == 0 or byte > 0x7F else chr(byte)
        for byte in data
    )
