"""What is removed from PostgreSQL for good. Where a whole month has no run left, its partitions are dropped.

That takes no longer for a large month than for a small one. A deleted row is found by nobody. Its bytes stay
in the files of the database until those are vacuumed and written over, and in its log, its standbys and its
backups for as long as these are kept; that is not for a client of the database to change, see decision 0036.
"""

from collections.abc import Sequence

from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.migrations import make_months
from runglass.store.removal import MONTH_BITS, Removal
from runglass.store.statements import one
from runglass.support.logs import FailureLog


class PostgresRemoval(Removal):
    """What PostgreSQL does in a way of its own."""

    _db: Connections
    _months_ahead: FailureLog
    _months_gone: set[int]

    async def purge_rows(self, runs: Sequence[int], *, limit_rows: int, limit_bytes: int) -> int:
        for month in {run_no >> MONTH_BITS for run_no in runs} - self._months_gone:
            # By itself: everybody who reads or appends waits until it is committed.
            sql = "SELECT drop_month_of(:run_no)"
            if await self._statements.read(one(lambda row: bool(row[0]), sql, run_no=month << MONTH_BITS)):
                self._months_gone.add(month)
        return await super().purge_rows(runs, limit_rows=limit_rows, limit_bytes=limit_bytes)

    async def compact(self, *, limit_bytes: int) -> bool:
        # Months that are due are dropped with their last run, and all other space is the database's. Marks
        # are asked for within seconds.
        async def work(db: Db) -> None:
            await db.execute("DELETE FROM commit_mark WHERE made_at < now() - interval '1 day'")

        await self._db.write(work)
        await make_months(self._db, self._months_ahead)
        return False

    async def scrub(self) -> bool:
        # What is deleted is out of reach of every statement; files are the database's.
        return True
