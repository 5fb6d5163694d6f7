"""Removal from PostgreSQL for good: whole runs, the content of runs, and the space that they took.

In bites, so that no transaction lasts long. Where a whole month has no run left, its partitions are
dropped, which takes no longer for a large month than for a small one.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from runglass.log.content import strip_error, strip_summary
from runglass.store.audit import note_change
from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.migrations import make_months
from runglass.store.postgres.run_rows import RunFacts
from runglass.store.postgres.sql_helpers import as_int, every, perform
from runglass.store.records import ContentPlace
from runglass.store.run_tables import CONTENT, ENDED, ROWS_OF_RUN, SIZES, Stripped
from runglass.support.logs import FailureLog
from runglass.wire.admin_api import Actor


class Removal:
    """The part of the store that removes runs and their content."""

    _db: Connections
    _months_ahead: FailureLog

    async def ended_runs(self, flow_id: str, *, before: str, with_content: bool, limit: int) -> list[int]:
        sql = "SELECT no FROM run WHERE flow_id = $1 AND ended_at <= $2"
        if with_content:
            sql += " AND has_content"
        return await self._db.read(
            every(as_int, f"{sql} ORDER BY ended_at, no LIMIT $3", flow_id, before, limit)
        )

    async def purge_run(self, run_no: int, *, by: Actor | None = None) -> bool:
        async def work(db: Db) -> bool:
            row = await db.fetchrow(
                f"DELETE FROM run WHERE no = $1 AND {ENDED}"
                " RETURNING id, project_id, flow_id, status, log_bytes + open_bytes",
                run_no,
            )
            if row is None:
                return False
            run_id, project_id, flow_id, status, size = row
            await db.execute("SELECT count_bytes($1, $2)", project_id, -size)
            await db.execute("INSERT INTO purged_run (run_no) VALUES ($1)", run_no)
            await db.execute("DELETE FROM ended_run WHERE run_no = $1", run_no)
            await db.execute("DELETE FROM due_outline WHERE run_no = $1", run_no)
            await db.execute("DELETE FROM run_setback WHERE run_id = $1", run_id)
            # With the run and not later: a call that is sent again is not to get an answer out of it.
            await db.execute("DELETE FROM call WHERE run_id = $1", run_id)
            if by is not None:
                told = {"flowId": flow_id, "status": status}
                await perform(db, note_change(project_id, by, "run.purged", run_id, **told))
            return True

        return await self._db.write(work)

    async def purged_runs(self) -> list[int]:
        return await self._db.read(every(as_int, "SELECT run_no FROM purged_run ORDER BY run_no"))

    async def purge_rows(self, run_no: int, *, limit_rows: int, limit_bytes: int) -> bool:
        async def work(db: Db) -> bool:
            found = "SELECT 1 FROM purged_run WHERE run_no = $1 FOR UPDATE SKIP LOCKED"
            if await db.fetchval(found, run_no) is None:
                return False
            # In the first place: what goes with its month need not go row by row.
            await db.fetchval("SELECT drop_month_of($1)", run_no)
            rows, size = limit_rows, limit_bytes
            for table in ROWS_OF_RUN:
                gone, freed = await delete_some(db, table, run_no, limit_rows=rows, limit_bytes=size)
                rows, size = rows - gone, size - freed
                if rows <= 0 or size <= 0:
                    return True
            await db.execute("DELETE FROM purged_run WHERE run_no = $1", run_no)
            return False

        return await self._db.write(work)

    async def strip_content(
        self, run_no: int, place: ContentPlace | None, *, limit_rows: int, limit_bytes: int
    ) -> ContentPlace | None:
        async def work(db: Db) -> ContentPlace | None:
            # Locked before it is read: two processes that do the same would count twice what they save.
            await db.execute("SELECT FROM run WHERE no = $1 FOR NO KEY UPDATE", run_no)
            stripped = await _strip_some(db, run_no, place, limit_rows=limit_rows, limit_bytes=limit_bytes)
            if stripped.freed:
                project_id = await db.fetchval(
                    "UPDATE run SET log_bytes = log_bytes - $1 WHERE no = $2 RETURNING project_id",
                    *(stripped.freed, run_no),
                )
                if project_id is not None:
                    await db.execute("SELECT count_bytes($1, $2)", project_id, -stripped.freed)
            for table, key, data in stripped.rows:
                same_row = " AND ".join(
                    f"{column} = ${number}"
                    for number, column in enumerate(("run_no", *ROWS_OF_RUN[table]), 2)
                )
                await db.execute(f"UPDATE {table} SET data = $1 WHERE {same_row}", data, run_no, *key)
            if stripped.place is None:
                await _finish(db, run_no, stripped)
            return stripped.place

        return await self._db.write(work)

    async def compact(self, *, limit_bytes: int) -> bool:
        # Months that are due are dropped with their last run, and all other space is the database's. Marks
        # are asked for within seconds.
        async def work(db: Db) -> None:
            await db.execute("DELETE FROM commit_mark WHERE made_at < now() - interval '1 day'")

        await self._db.write(work)
        await make_months(self._db, self._months_ahead)
        return False


async def _finish(db: Db, run_no: int, stripped: Stripped) -> None:
    """Takes the content out of what a run has once."""
    await db.execute(
        "UPDATE run_outcome SET result = NULL, error = $1 WHERE run_no = $2", stripped.outcome, run_no
    )
    await db.execute("SELECT count_kept(ARRAY[$1::bigint])", run_no)
    error = None if stripped.summary is None else RunFacts.of(stripped.summary).error
    await db.execute(
        "UPDATE run SET has_content = false, summary = coalesce($1, summary), error = $2"
        f" WHERE no = $3 AND {ENDED}",
        *(stripped.summary, error, run_no),
    )


async def delete_some(
    db: Db, table: str, run_no: int, *, limit_rows: int, limit_bytes: int
) -> tuple[int, int]:
    """Deletes the first rows of the run: one at least if there is one. Returns how many, and their bytes."""
    key = ROWS_OF_RUN[table]
    size = SIZES.get(table, "length(data)")
    columns, order = ", ".join((size, *key)), ", ".join(("run_no", *key))
    found = await db.fetch(
        f"SELECT {columns} FROM {table} WHERE run_no = $1 ORDER BY {order} LIMIT $2", run_no, limit_rows
    )
    first = first_rows(found, limit_bytes=limit_bytes)
    if first:
        marks = ", ".join(f"${number}" for number in range(2, 2 + len(key)))
        upto = f" AND ({', '.join(key)}) <= ({marks})" if key else ""
        await db.execute(f"DELETE FROM {table} WHERE run_no = $1{upto}", run_no, *tuple(first[-1])[1:])
    return len(first), sum(row[0] for row in first)


def first_rows(rows: Sequence[Any], *, limit_bytes: int) -> list[Any]:
    """The first rows, each with its bytes in front: one at least if there is one, about `limit_bytes`."""
    found, size = [], 0
    for row in rows:
        found.append(row)
        size += row[0]
        if size >= limit_bytes:
            break
    return found


async def _strip_some(
    db: Db, run_no: int, place: ContentPlace | None, *, limit_rows: int, limit_bytes: int
) -> Stripped:
    rows: list[tuple[str, tuple[int, ...], bytes]] = []
    seen = size = freed = 0
    async for table, key, data in _content_of(db, run_no, place, limit_rows, limit_bytes):
        stripped = CONTENT[table](data)
        seen, size = seen + 1, size + len(data)
        if stripped != data:
            rows.append((table, key, stripped))
            freed += len(data) - len(stripped)
        if seen >= limit_rows or size >= limit_bytes:
            return Stripped(rows, None, None, ContentPlace(table, key), freed)
    outcome = await db.fetchrow("SELECT error FROM run_outcome WHERE run_no = $1", run_no)
    summary = await db.fetchval("SELECT summary FROM run WHERE no = $1", run_no)
    return Stripped(
        rows,
        strip_error(outcome[0]) if outcome else None,
        strip_summary(summary) if summary is not None else None,
        None,
        freed,
    )


async def _content_of(
    db: Db, run_no: int, place: ContentPlace | None, limit_rows: int, limit_bytes: int
) -> AsyncIterator[tuple[str, tuple[int, ...], bytes]]:
    """The first rows with content after that place, each with its table and its key in its run."""
    tables: Sequence[str] = list(CONTENT)
    after: tuple[int, ...] = ()
    if place is not None:
        tables, after = tables[tables.index(place.table) :], place.key
    for table in tables:
        columns = ", ".join(ROWS_OF_RUN[table])
        marks = ", ".join(f"${number}" for number in range(4, 4 + len(after)))
        beyond = f" AND ({columns}) > ({marks})" if after else ""
        found = await db.fetch(
            f"SELECT data, {columns} FROM (SELECT *, sum(length(data)) OVER (ORDER BY {columns})"
            f" - length(data) AS before FROM (SELECT * FROM {table} WHERE run_no = $1{beyond}"
            f" ORDER BY {columns} LIMIT $2) AS rows) AS sized WHERE before < $3 ORDER BY {columns}",
            *(run_no, limit_rows, limit_bytes, *after),
        )
        for data, *numbers in found:
            yield table, tuple(numbers), data
        after = ()
