"""How far the runs of each project have been sent on as spans: no buffer of what waits, as the log has it."""

from __future__ import annotations

from runglass.store.dialect import Dialect
from runglass.store.records import SpanCursor
from runglass.store.statements import Statements, Steps, changed, done, every, fetch


class SpanCursors:
    """The part of the store that knows what has been sent."""

    _statements: Statements
    _sql: Dialect

    async def span_cursors(self) -> list[SpanCursor]:
        changes = f"({self._sql.changes}) AS changes"
        behind = every(
            SpanCursor._make,
            f"SELECT sent.project_id, change_no FROM sent_run AS sent JOIN {changes}"
            " ON changes.project_id = sent.project_id WHERE last > change_no ORDER BY sent.project_id",
        )
        # Who finds no row at all is the first one that sends from this store.
        begin = done(
            "INSERT INTO sent_run (project_id, change_no) SELECT project_id,"
            f" CASE WHEN EXISTS (SELECT 1 FROM sent_run) THEN 0 ELSE last END FROM {changes}"
            " UNION ALL SELECT 0, 0 WHERE true ON CONFLICT (project_id) DO NOTHING"
        )
        is_new = fetch(
            f"SELECT 1 FROM (SELECT 0 AS project_id UNION ALL SELECT project_id FROM {changes}) AS wanted"
            " WHERE project_id NOT IN (SELECT project_id FROM sent_run) LIMIT 1"
        )
        if await self._statements.read(is_new):
            # Also on a full disk: a server is to start there.
            await self._statements.remove(begin)
        return await self._statements.read(behind)

    async def move_span_cursor(self, cursor: SpanCursor, change_no: int) -> bool:
        sql = "UPDATE sent_run SET change_no = :after WHERE project_id = :project_id AND change_no = :before"
        moved = changed(sql, after=change_no, project_id=cursor.project_id, before=cursor.change_no)
        return await self._statements.write(moved) == 1


def count_unsent(gone: list[tuple[int, int]]) -> Steps[None]:
    """Counts runs that are deleted, each by its project and its newest change, if they were not sent yet."""
    numbers: dict[int, list[int]] = {}
    for project_id, change_no in gone:
        numbers.setdefault(project_id, []).append(change_no)
    sql = "SELECT project_id, change_no FROM sent_run WHERE project_id = ANY (:ids) ORDER BY project_id"
    for project_id, sent in (yield fetch(sql, ids=list(numbers))):
        if count := sum(number > sent for number in numbers[project_id]):
            sql = "UPDATE sent_run SET deleted = deleted + :count WHERE project_id = :project_id"
            yield done(sql, count=count, project_id=project_id)
