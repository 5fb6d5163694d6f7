"""Content taken out of runs that have ended, in bites: of many small runs, or of some rows of a large one.

It is read and stripped beside the writers, in nobody's way, as such runs change no more. What is written is
checked to be of a log that nobody else has stripped meanwhile, as another process may.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from runglass.log.content import strip_error, strip_summary
from runglass.store.records import ContentPlace
from runglass.store.run_tables import (
    CONTENT,
    ENDED,
    ROWS_OF_RUN,
    count_that_fit,
    first_that_fit,
    placeholders,
)
from runglass.store.statements import ForEach, Steps, StorePart, count_bytes, count_kept, fetch, subtract


class ContentRemoval(StorePart):
    """The part of the store that takes out content."""

    async def strip_content(
        self, runs: Sequence[int], place: ContentPlace | None, *, limit_rows: int, limit_bytes: int
    ) -> tuple[int, ContentPlace | None]:
        """Takes the content out of the first of these ended runs; returns of how many, and where to go on.

        It takes as many of the first as fit into the limits together, in one transaction. Of one that does
        not fit it takes some rows, the first behind `place`: 0, and the place of the last of them. May begin
        anew at any time.
        """
        bite = await self._read(lambda: _read(runs, place, limit_rows=limit_rows, limit_bytes=limit_bytes))
        if bite.log_bytes:
            written = await self._remove(lambda: self._strip(bite))
            self._deleted = self._errors_deleted = True
            if not bite.is_whole and not written:
                return 0, place
        return (0, bite.place) if bite.place else (bite.runs, None)

    def _strip(self, bite: _Bite) -> Steps[bool]:
        """Writes what was stripped; whether there is anything of a log that is as it was read."""
        sql = "SELECT no, project_id, log_bytes FROM run WHERE no = ANY (:runs) ORDER BY no FOR NO KEY UPDATE"
        project_of: dict[int, int] = {}
        for run_no, project_id, log_bytes in (yield fetch(sql, runs=list(bite.log_bytes))):
            if log_bytes == bite.log_bytes[run_no]:
                project_of[run_no] = project_id
        for table, rows in bite.rows.items():
            same_row = " AND ".join(f"{column} = :{column}" for column in ("run_no", *ROWS_OF_RUN[table]))
            unchanged = [row for row in rows if row["run_no"] in project_of]
            if unchanged:
                yield ForEach(f"UPDATE {table} SET data = :data WHERE {same_row}", unchanged)
        errors = [each for each in bite.errors if each["run_no"] in project_of]
        if errors:
            sql = "UPDATE run_outcome SET result = NULL, error = :error WHERE run_no = :run_no"
            yield ForEach(sql, errors)
            yield count_kept([each["run_no"] for each in errors])
        runs: list[dict[str, Any]] = []
        for run_no in project_of:
            runs.append({"no": run_no, "freed": bite.freed[run_no]})
            if (summary := bite.summaries.get(run_no)) is not None:
                runs[-1] |= {"has_content": False, "summary": summary, **self._columns_of(summary)}
        if runs:
            changes = ["log_bytes = log_bytes - :freed", *(f"{name} = :{name}" for name in [*runs[0]][2:])]
            yield ForEach(f"UPDATE run SET {', '.join(changes)} WHERE no = :no", runs)
        yield from subtract(count_bytes, [(project_of[no], bite.freed[no]) for no in project_of])
        return bool(project_of)


class _Bite:
    """Rows without their content, of so many of the first runs, or of a part of the first one.

    `log_bytes` are those of these runs when they were read. Of runs that are through, also what is left of
    their errors and summaries; of any other `place` is where to go on.
    """

    def __init__(self, runs: int, log_bytes: Mapping[int, int], *, is_whole: bool) -> None:
        self.runs = runs
        self.log_bytes = log_bytes
        self.is_whole = is_whole
        self.freed = dict.fromkeys(log_bytes, 0)
        self.rows: dict[str, list[dict[str, Any]]] = {table: [] for table in CONTENT}
        self.errors: list[dict[str, Any]] = []
        self.summaries: dict[int, bytes] = {}
        self.place: ContentPlace | None = None

    def strip(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """Takes in rows of a table, each its run, its key and its data."""
        names = ("run_no", *ROWS_OF_RUN[table])
        for *key, data in rows:
            stripped = CONTENT[table](data)
            if stripped != data:
                self.rows[table].append({**dict(zip(names, key, strict=True)), "data": stripped})
                self.freed[key[0]] += len(data) - len(stripped)


def _read(
    runs: Sequence[int], place: ContentPlace | None, *, limit_rows: int, limit_bytes: int
) -> Steps[_Bite]:
    sql = f"SELECT no, head, log_bytes FROM run WHERE no = ANY (:runs) AND has_content AND {ENDED}"
    found = {run_no: size for run_no, *size in (yield fetch(sql, runs=list(runs)))}
    sizes = [found.get(run_no, (0, 0)) for run_no in runs]
    count = 0 if place else count_that_fit(sizes, limit_rows=limit_rows, limit_bytes=limit_bytes)
    some = [run_no for run_no in runs[: count or 1] if run_no in found]
    bite = _Bite(count or 1, {run_no: found[run_no][1] for run_no in some}, is_whole=count > 0)
    if not some:
        return bite
    if count:
        for table in CONTENT:
            columns = ", ".join(("run_no", *ROWS_OF_RUN[table], "data"))
            sql = f"SELECT {columns} FROM {table} WHERE run_no = ANY (:runs)"
            bite.strip(table, (yield fetch(sql, runs=some)))
    else:
        yield from _read_part(bite, runs[0], place, limit_rows=limit_rows, limit_bytes=limit_bytes)
    if bite.place is None:
        for run_no, error in (
            yield fetch("SELECT run_no, error FROM run_outcome WHERE run_no = ANY (:runs)", runs=some)
        ):
            bite.errors.append({"run_no": run_no, "error": strip_error(error)})
        for run_no, summary in (yield fetch("SELECT no, summary FROM run WHERE no = ANY (:runs)", runs=some)):
            bite.summaries[run_no] = strip_summary(summary)
    return bite


def _read_part(
    bite: _Bite, run_no: int, place: ContentPlace | None, *, limit_rows: int, limit_bytes: int
) -> Steps[None]:
    """Strips the first rows of the run behind that place."""
    tables = list(CONTENT)
    after: dict[str, int] = {}
    if place is not None:
        tables = tables[tables.index(place.table) :]
        after = dict(zip(ROWS_OF_RUN[place.table], place.key, strict=True))
    for table in tables:
        key = ROWS_OF_RUN[table]
        names = ", ".join(key)
        beyond = f" AND ({names}) > ({placeholders(f'after_{name}' for name in key)})" if after else ""
        values = {"run_no": run_no, **{f"after_{name}": value for name, value in after.items()}}
        sql = (
            f"SELECT {names}, length(data) FROM {table} WHERE run_no = :run_no{beyond}"
            f" ORDER BY {names} LIMIT :most"
        )
        found = yield fetch(sql, **values, most=limit_rows)
        first = first_that_fit(found, limit_bytes=limit_bytes)
        if first:
            *last, _ = first[-1]
            sql = (
                f"SELECT run_no, {names}, data FROM {table}"
                f" WHERE run_no = :run_no{beyond} AND ({names}) <= ({placeholders(key)})"
            )
            bite.strip(table, (yield fetch(sql, **values, **dict(zip(key, last, strict=True)))))
            limit_rows, limit_bytes = limit_rows - len(first), limit_bytes - sum(row[-1] for row in first)
            if limit_rows <= 0 or limit_bytes <= 0:
                bite.place = ContentPlace(table, tuple(last))
                return
        after = {}
