"""What PostgreSQL says in its own way where it searches for runs."""

from typing import Any

from runglass.store.postgres.connections import Db
from runglass.store.postgres.sql_helpers import perform
from runglass.store.query_condition import RunFactsSql
from runglass.store.query_index import SearchSql, Source
from runglass.store.query_search import Look, Progress, SearchedTexts
from runglass.store.statements import fetch
from runglass.wire.query import RunQuery

_PIECE = {"rows": 200, "bytes": 1 << 20}
# First the bytes as they are, in the database: few events have the text anywhere, and only those are sent and
# read as JSON. Bytes that are not ASCII are compared as escapes, so that any bytes can be looked at.
_EVENTS = (
    "SELECT seq, CASE WHEN EXISTS (SELECT FROM unnest(:texts::text[]) AS text"
    """ WHERE strpos(lower(encode(data, 'escape') COLLATE "C"), text) > 0) THEN data END FROM ("""
    "SELECT seq, data, sum(length(data)) OVER (ORDER BY seq) - length(data) AS before"
    " FROM (SELECT seq, data FROM event WHERE run_no = :run_no AND seq > :seq ORDER BY seq LIMIT :rows)"
    " AS rows) AS sized WHERE before < :bytes ORDER BY seq"
)


def rows_of(
    source: Source, what: str, limit: int | None, *, newest: bool = True
) -> tuple[str, dict[str, Any]]:
    table, columns, direction = source.table, source.columns, "DESC" if newest else "ASC"
    same = "".join(f" AND {table}.{column} = key.{column}" for column in columns)
    within = (
        f"{table}.project_id = asked.project_id"
        f" AND {table}.id < asked.before AND {table}.id >= asked.since{same}"
    )
    if limit:
        # As one value, in its order: else the index of ids alone has the order as well, and by that the
        # planner may go through the runs of all projects for a rare key.
        row = ", ".join(f"{table}.{column}" for column in ("project_id", *columns, "id"))
        key = ", ".join(("asked.project_id", *(f"key.{column}" for column in columns)))
        within = f"({row}) < ({key}, asked.before) AND ({row}) >= ({key}, asked.since)"
        within += " AND run.session_id IS NOT NULL" if "session_id" in columns else ""
        within += f" ORDER BY {row.replace(',', f' {direction},')} {direction} LIMIT {limit}"
    unnested = ", ".join(f":{column}::{'bigint' if column == 'version' else 'text'}[]" for column in columns)
    keys = f" CROSS JOIN unnest({unnested}) AS key ({', '.join(columns)})" if columns else ""
    order = f" ORDER BY id {direction} LIMIT {limit}" if limit and columns else ""
    sql = (
        "SELECT found.* FROM"
        " (SELECT :project_id::bigint AS project_id, :before::text AS before, :since::text AS since) AS asked"
        f"{keys} CROSS JOIN LATERAL (SELECT {what} FROM {table} WHERE {within}) AS found{order}"
    )
    of_keys = dict(zip(columns, (list(each) for each in zip(*source.keys, strict=True)), strict=False))
    return sql, {"project_id": source.project_id, **of_keys}


class TextSearch(SearchedTexts):
    """Searched in the log of a run."""

    def __init__(self, query: RunQuery) -> None:
        super().__init__(query)
        self._escaped = [_escaped(pattern) for pattern in self.patterns]

    async def meets(self, db: Db, run_no: int, progress: Progress, look: Look) -> bool | Progress:
        """Whether the run meets the terms; or how far it was searched when `look` was over."""
        seq, met = progress
        while True:
            events = fetch(_EVENTS, run_no=run_no, seq=seq, texts=self._escaped, **_PIECE)
            rows = await perform(events, db)
            for number, data in rows:
                seq = number
                if data is not None:
                    met |= self.met_in(data)
                verdict = self.verdict(met)
                if verdict is not None:
                    return verdict
            if not rows:
                return self.at_the_end(met)
            if look.is_over:
                return Progress(seq, met)


def _escaped(data: bytes) -> str:
    """The bytes as PostgreSQL's format `escape` writes them."""
    return "".join(
        "\\\\" if byte == 0x5C else f"\\{byte:03o}" if byte == 0 or byte > 0x7F else chr(byte)
        for byte in data
    )


SEARCH_SQL = SearchSql(
    # What a run's own JSON says of it is in columns, set by each append, so that no statement reads JSON.
    facts=RunFactsSql(
        # In capitals: in small letters it is the text of the time.
        now_ms="extract(epoch FROM NOW())::float8 * 1000",
        started_ms="started_ms",
        live_cost_usd="live_cost_usd",
        live_tokens="live_tokens",
        has_model="models && {}::text[]",
        is_recorded="models && {1}::text[]",
        error="error",
        position="strpos",
    ),
    rows=rows_of,
    texts=TextSearch,
    ids="string_agg(id, ',') FILTER (WHERE ok)",
)
