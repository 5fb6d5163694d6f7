"""How content leaves the PostgreSQL store: rows kept for callers long enough, some at a time.

A deleted row is found by nobody. Its bytes stay in the files of the database until those are vacuumed and
written over, and in its log, its standbys and its backups for as long as these are kept; that is not for a
client of the database to change, see decision 0036.
"""

from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.removal import delete_some
from runglass.store.postgres.sql_helpers import one

# The answer to a job is given long before its run ends, and goes with the other content that is owed.
_DUE_ANSWERS = (
    "SELECT no, run_no, length(answer) FROM call_answer WHERE answered_at < $1"
    " AND NOT EXISTS (SELECT FROM run_outcome WHERE run_no = call_answer.run_no)"
    " AND NOT EXISTS (SELECT FROM run WHERE run.no = call_answer.run_no AND status IN ('pending', 'running'))"
    " ORDER BY answered_at LIMIT $2"
)
_DUE_OUTCOMES = (
    "SELECT run_no, coalesce(length(result), 0) + coalesce(length(error), 0)"
    " FROM run_outcome WHERE ended_at < $1 ORDER BY ended_at, run_no LIMIT $2"
)
_NOT_TAKEN = "FOR UPDATE SKIP LOCKED"
"""Passes over what another process deletes at this moment: its bytes are to be counted once."""
_BITE_ROWS, _BITE_BYTES = 250, 1 << 20


class Expiry:
    """The part of the store that forgets."""

    _db: Connections

    async def expire_answers(self, *, before: str, limit: int) -> int:
        async def work(db: Db) -> int:
            gone, room = 0, _BITE_BYTES
            for run_no, size in await db.fetch(f"{_DUE_OUTCOMES} {_NOT_TAKEN}", before, limit):
                if room <= 0:
                    break
                rows, freed = await delete_some(db, "owed", run_no, limit_rows=_BITE_ROWS, limit_bytes=room)
                gone, room = gone + 1, room - freed
                if rows == _BITE_ROWS or room <= 0:
                    # There may be more of it, which goes with the next bite.
                    await db.execute("SELECT count_open($1, $2)", run_no, -freed)
                    break
                await db.execute("DELETE FROM run_outcome WHERE run_no = $1", run_no)
                await db.execute("SELECT count_open($1, $2)", run_no, -freed - size)
                await db.execute("SELECT count_kept(ARRAY[$1::bigint])", run_no)
                room -= size
            for number, run_no, size in await db.fetch(f"{_DUE_ANSWERS} {_NOT_TAKEN}", before, limit):
                if room > 0:
                    await db.execute("DELETE FROM call_answer WHERE no = $1", number)
                    await db.execute("SELECT count_open($1, $2)", run_no, -size)
                    gone, room = gone + 1, room - size
            return gone

        due = f"SELECT EXISTS ({_DUE_OUTCOMES}) OR EXISTS ({_DUE_ANSWERS})"
        if not await self._db.read(one(lambda row: bool(row[0]), due, before, 1)):
            return 0
        return await self._db.write(work)

    async def scrub(self) -> bool:
        # What is deleted is out of reach of every statement; files are the database's.
        return True
