"""What SQLite says in its own way where it searches for runs."""

import sqlite3
from typing import Any

from runglass.store.query_condition import RunFactsSql
from runglass.store.query_index import SearchSql, Source
from runglass.store.query_search import Look, Progress, SearchedTexts
from runglass.wire.query import RunQuery

# What a run's own JSON says is read only from rows whose columns do not say it, as of runs that go on.
_SUMMARY = "CASE WHEN json_valid(CAST(summary AS TEXT)) THEN CAST(summary AS TEXT) END"
LOOKED_FOR_CHARS = 64


def rows_of(
    source: Source, what: str, limit: int | None, *, newest: bool = True
) -> tuple[str, dict[str, Any]]:
    # A search for each key, which SQLite merges by id as far as rows are asked for.
    hint = "" if source.table == source.name else f" INDEXED BY {source.name}"
    parts, values = [], {"project_id": source.project_id}
    for number, key in enumerate(source.keys):
        names = {f"{column}_{number}": column for column in source.columns}
        same = "".join(f" AND {column} = :{name}" for name, column in names.items())
        values |= zip(names, key, strict=True)
        parts.append(
            f"SELECT {what} FROM {source.table}{hint} WHERE project_id = :project_id{same}"
            " AND id < :before AND id >= :since"
        )
    order = f" ORDER BY id {'DESC' if newest else 'ASC'} LIMIT {limit}" if limit else ""
    return " UNION ALL ".join(parts) + order, values


class TextSearch(SearchedTexts):
    """Searched in the log of a run."""

    def __init__(self, query: RunQuery) -> None:
        super().__init__(query)
        # First the bytes as they are: few events have the text anywhere, and only those are read as JSON. The
        # beginning of a text has to do, as `instr` compares it anew at each character of the event.
        texts = [pattern.decode()[:LOOKED_FOR_CHARS] for pattern in self.patterns]
        self._values = {f"t{number}": text for number, text in enumerate(texts)}
        has = " OR ".join(f"instr(lower(CAST(data AS TEXT)), :{name}) > 0" for name in self._values)
        self._events = (
            f"SELECT seq, CASE WHEN {has} THEN data END FROM event"
            " WHERE run_no = :run_no AND seq > :seq ORDER BY seq"
        )

    def meets(self, db: sqlite3.Connection, run_no: int, progress: Progress, look: Look) -> bool | Progress:
        """Whether the run meets the terms; or how far it was searched when `look` was over."""
        seq, met = progress
        rows = db.execute(self._events, {"run_no": run_no, "seq": seq, **self._values})
        try:
            for seq, data in rows:
                if data is not None:
                    met |= self.met_in(data)
                verdict = self.verdict(met)
                if verdict is not None:
                    return verdict
                if look.is_over:
                    return Progress(seq, met)
        finally:
            # An unfinished SELECT would hold its read transaction open, and with it the log of the file.
            rows.close()
        return self.at_the_end(met)


SEARCH_SQL = SearchSql(
    facts=RunFactsSql(
        now_ms="julianday('now') * 86400000.0",
        started_ms=f"julianday(json_extract({_SUMMARY}, '$.startedAt')) * 86400000.0",
        live_cost_usd=f"CAST(json_extract({_SUMMARY}, '$.totals.costUsd') AS REAL)",
        live_tokens=f"json_extract({_SUMMARY}, '$.totals.tokens.total')",
        has_model=(
            f"EXISTS (SELECT 1 FROM json_each({_SUMMARY}, '$.totals.byModel')"
            " WHERE lower(key) = ANY ({0}) OR lower(substr(key, instr(key, ':') + 1)) = ANY ({0}))"
        ),
        is_recorded=f"'{{0}}=' || lower(json_extract({_SUMMARY}, '$.recording.{{0}}')) = ANY ({{1}})",
        error=(
            "CASE WHEN status IN ('failed', 'cancelled') THEN (SELECT error FROM run_error"
            " WHERE run_error.project_id = run.project_id AND run_error.id = run.id) END"
        ),
        position="instr",
    ),
    rows=rows_of,
    texts=TextSearch,
    ids="group_concat(id, ',') FILTER (WHERE ok)",
)
