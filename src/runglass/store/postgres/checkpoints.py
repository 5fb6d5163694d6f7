"""Checkpoints in PostgreSQL: read back, and deleted in bites once they are void.

They hold outputs and may be large. What a large run no longer needs goes bit by bit, and counts as its
bytes until then. How an append drops checkpoints is in the function `append_rows` of the database.
"""

from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.removal import delete_some, first_rows
from runglass.store.postgres.sql_helpers import as_bytes, every, one
from runglass.store.records import Checkpoint

_NOT_VOID = (
    "NOT EXISTS (SELECT FROM void_checkpoint AS void WHERE void.run_no = checkpoint.run_no"
    " AND void.step_id = checkpoint.step_id AND void.seq >= checkpoint.seq)"
)
_HOLDS = f"{_NOT_VOID} AND NOT EXISTS (SELECT FROM ended_run WHERE run_no = checkpoint.run_no)"
"""The condition for the checkpoints that hold."""
_WITH_CHECKPOINTS_LEFT = (
    "SELECT run.no, project_id FROM (SELECT run_no FROM ended_run UNION SELECT run_no FROM void_checkpoint)"
    " AS due JOIN run ON run.no = run_no ORDER BY project_id <= $1, project_id, run_no LIMIT 1"
)
"""The projects take turns: the first one behind that number, or the first of all."""
_VOID_OF_STEP = (
    "SELECT length(data), loop_path FROM checkpoint WHERE run_no = $1 AND step_id = $2 AND seq <= $3"
    " ORDER BY loop_path LIMIT $4"
)


class Checkpoints:
    """The part of the store that keeps checkpoints."""

    _db: Connections
    _project_before = 0
    """Whose checkpoints went last."""

    async def checkpoints(self, run_no: int) -> list[Checkpoint]:
        sql = (
            f"SELECT step_id, loop_path, data FROM checkpoint WHERE run_no = $1 AND {_HOLDS}"
            " ORDER BY step_id, loop_path"
        )
        return await self._db.read(every(Checkpoint._make, sql, run_no))

    async def checkpoint(self, run_no: int, step_id: str, loop_path: str) -> bytes | None:
        sql = (
            f"SELECT data FROM checkpoint WHERE run_no = $1 AND step_id = $2 AND loop_path = $3 AND {_HOLDS}"
        )
        return await self._db.read(one(as_bytes, sql, run_no, step_id, loop_path))

    async def drop_checkpoints(self, *, limit_rows: int, limit_bytes: int) -> bool:
        async def work(db: Db) -> bool:
            row = await db.fetchrow(_WITH_CHECKPOINTS_LEFT, self._project_before)
            if row is None:
                return False
            run_no, self._project_before = row
            # Locked as an append would: what is deleted and what is counted belong together.
            await db.execute("SELECT FROM run WHERE no = $1 FOR NO KEY UPDATE", run_no)
            if await db.fetchval("SELECT 1 FROM ended_run WHERE run_no = $1", run_no):
                gone, freed = await delete_some(
                    db, "checkpoint", run_no, limit_rows=limit_rows, limit_bytes=limit_bytes
                )
                await db.execute("SELECT count_open($1, $2)", run_no, -freed)
                if gone < limit_rows and freed < limit_bytes:
                    await db.execute("DELETE FROM ended_run WHERE run_no = $1", run_no)
                    await db.execute("DELETE FROM void_checkpoint WHERE run_no = $1", run_no)
                    await db.execute("SELECT count_kept(ARRAY[$1::bigint])", run_no)
            else:
                await _drop_void(db, run_no, limit_rows=limit_rows, limit_bytes=limit_bytes)
            return True

        left = await self._db.read(every(tuple, _WITH_CHECKPOINTS_LEFT, self._project_before))
        return bool(left) and await self._db.write(work)


async def _drop_void(db: Db, run_no: int, *, limit_rows: int, limit_bytes: int) -> None:
    """Deletes some of the void checkpoints of a run that goes on: one at least if there is one."""
    steps = await db.fetch(
        "SELECT step_id, seq FROM void_checkpoint WHERE run_no = $1 ORDER BY step_id LIMIT $2",
        *(run_no, limit_rows),
    )
    rows, size = limit_rows, limit_bytes
    for step_id, seq in steps:
        found = await db.fetch(_VOID_OF_STEP, run_no, step_id, seq, rows)
        void = first_rows(found, limit_bytes=size)
        await db.execute(
            "DELETE FROM checkpoint WHERE run_no = $1 AND step_id = $2 AND seq <= $3"
            " AND loop_path = ANY ($4)",
            *(run_no, step_id, seq, [loop_path for _, loop_path in void]),
        )
        rows, size = rows - len(void), size - sum(length for length, _ in void)
        if rows <= 0 or size <= 0:
            break
        await db.execute("DELETE FROM void_checkpoint WHERE run_no = $1 AND step_id = $2", run_no, step_id)
    await db.execute("SELECT count_open($1, $2)", run_no, size - limit_bytes)
