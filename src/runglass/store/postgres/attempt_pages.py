"""All attempts of a run in the order of its trace, page by page: what outlines are made of."""

from runglass.errors import RunPurged
from runglass.outlines.builder import AttemptRow
from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.run_rows import RUN, run_of
from runglass.store.postgres.sql_helpers import PIECE_ROWS
from runglass.store.records import RunRecord

_COLUMNS = "position, step_id, loop_path, attempt, status, data"
_FIRST = (
    f"(SELECT {_COLUMNS} FROM {{table}} WHERE run_no = $1 AND (position, attempt) > ($2, $3)"
    f" ORDER BY position, attempt LIMIT {PIECE_ROWS})"
)
_PAGE = (
    f"SELECT {_COLUMNS} FROM (SELECT *, sum(length(data)) OVER (ORDER BY position, attempt) - length(data)"
    f" AS before FROM ({_FIRST.format(table='step')} UNION ALL {_FIRST.format(table='step_attempt')}"
    f" ORDER BY position, attempt LIMIT {PIECE_ROWS}) AS attempts) AS sized"
    " WHERE before < $4 ORDER BY position, attempt"
)


class AttemptPages:
    """The part of the store that reads whole runs without their events."""

    _db: Connections

    async def attempt_page(
        self, run_no: int, *, after: tuple[int, int], limit_bytes: int
    ) -> tuple[RunRecord, list[AttemptRow]]:
        async def work(db: Db) -> tuple[RunRecord, list[AttemptRow]]:
            row = await db.fetchrow(f"{RUN} WHERE no = $1", run_no)
            if row is None:
                raise RunPurged(f"run number {run_no} was deleted while it was read")
            found: list[AttemptRow] = []
            place, left = after, limit_bytes
            while True:
                rows = [_attempt(each) for each in await db.fetch(_PAGE, run_no, *place, left)]
                found += rows
                left -= sum(len(each[5]) for each in rows)
                if len(rows) < PIECE_ROWS or left <= 0:
                    return run_of(row), found
                place = (found[-1][0], found[-1][3])

        return await self._db.read_at_one_moment(work)

    async def last_position(self, run_no: int) -> int:
        sql = "SELECT coalesce(max(position), 0) FROM step WHERE run_no = $1"
        return int(await self._db.read(lambda db: db.fetchval(sql, run_no)))


def _attempt(row: AttemptRow) -> AttemptRow:
    position, step_id, loop_path, attempt, status, data = row
    return position, step_id, loop_path, attempt, status, data
