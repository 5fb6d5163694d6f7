"""The outlines of large runs, kept in PostgreSQL once these have ended.

They come part by part, each in a transaction of its own, and go with the rows of their run.
"""

from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.run_rows import RUN, run_of
from runglass.store.postgres.sql_helpers import as_bytes, changed, every, one
from runglass.store.records import RunRecord

_DUE = f"{RUN} WHERE no = (SELECT max(run_no) FROM due_outline)"
# Locked, so that no purge comes between.
_DUE_AGAIN = (
    "INSERT INTO due_outline (run_no) SELECT no FROM run WHERE no = $1 FOR NO KEY UPDATE"
    " ON CONFLICT DO NOTHING"
)
_NO_MORE_DUE = "DELETE FROM due_outline WHERE run_no = $1"


class KeptOutlines:
    """The part of the store that keeps outlines."""

    _db: Connections

    async def due_outline(self) -> RunRecord | None:
        return await self._db.read(one(run_of, _DUE))

    async def keep_outline(self, run_no: int, part: int, data: bytes) -> None:
        async def work(db: Db) -> None:
            # Locked, so that no purge comes between.
            sql = "SELECT project_id FROM run WHERE no = $1 FOR NO KEY UPDATE"
            project_id = await db.fetchval(sql, run_no)
            if project_id is None:
                return
            sql = "SELECT length(data) FROM kept_outline WHERE run_no = $1 AND part = $2"
            size = len(data) - (await db.fetchval(sql, run_no, part) or 0)
            await db.execute(
                "INSERT INTO kept_outline (run_no, part, data) VALUES ($1, $2, $3)"
                " ON CONFLICT (run_no, part) DO UPDATE SET data = excluded.data",
                *(run_no, part, data),
            )
            await db.execute("UPDATE run SET log_bytes = log_bytes + $1 WHERE no = $2", size, run_no)
            await db.execute("SELECT count_bytes($1, $2)", project_id, size)
            if part == 0:
                await db.execute(_NO_MORE_DUE, run_no)

        await self._db.write(work)

    async def pass_over_outline(self, run_no: int) -> None:
        await self._db.write(changed(_NO_MORE_DUE, run_no))

    async def renew_outline(self, run_no: int) -> None:
        await self._db.write(changed(_DUE_AGAIN, run_no))

    async def kept_outline(self, run_no: int) -> list[bytes]:
        sql = (
            "SELECT data FROM kept_outline WHERE run_no = $1"
            " AND EXISTS (SELECT FROM kept_outline WHERE run_no = $1 AND part = 0) ORDER BY part"
        )
        return await self._db.read(every(as_bytes, sql, run_no))
