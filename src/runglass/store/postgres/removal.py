"""What is removed from PostgreSQL for good. Where a whole month has no run left, its partitions are dropped.

That takes no longer for a large month than for a small one. A deleted row is found by nobody. Its bytes stay
in the files of the database until those are vacuumed and written over, and in its log, its standbys and its
backups for as long as these are kept; that is not for a client of the database to change, see decision 0036.
"""

from typing import Any

from runglass.store.postgres.append_rows import RunFacts
from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.migrations import make_months
from runglass.store.postgres.sql_helpers import first_rows, in_postgres
from runglass.store.records import ContentPlace
from runglass.store.removal import Removal, marks
from runglass.store.run_tables import ENDED, ROWS_OF_RUN
from runglass.store.statements import Steps
from runglass.support.logs import FailureLog


async def content(
    db: Db, *, table: str, run_no: int, after: tuple[int, ...], limit_rows: int, limit_bytes: int
) -> list[Any]:
    """The first rows of the run with content behind a key, each with its key and its data."""
    key = ", ".join(ROWS_OF_RUN[table])
    beyond = f" AND ({key}) > ({marks(4, len(after))})" if after else ""
    sql = (
        f"SELECT {key}, data FROM (SELECT *, sum(length(data)) OVER (ORDER BY {key})"
        f" - length(data) AS before FROM (SELECT * FROM {table} WHERE run_no = ?1{beyond}"
        f" ORDER BY {key} LIMIT ?2) AS rows) AS sized WHERE before < ?3 ORDER BY {key}"
    )
    return await db.fetch(in_postgres(sql), run_no, limit_rows, limit_bytes, *after)


class PostgresRemoval(Removal):
    """What PostgreSQL does in a way of its own."""

    _db: Connections
    _months_ahead: FailureLog
    _drop_month = ("SELECT drop_month_of(?1)",)
    _first_rows = staticmethod(first_rows)
    _content = staticmethod(content)

    @staticmethod
    def _forget_run(run_no: int, run_id: str) -> tuple[Any, ...]:
        return "DELETE FROM run_setback WHERE run_id = ?1", run_id

    async def strip_content(
        self, run_no: int, place: ContentPlace | None, *, limit_rows: int, limit_bytes: int
    ) -> ContentPlace | None:
        def work() -> Steps[ContentPlace | None]:
            # Locked before it is read: two processes that do the same would count twice what they save.
            yield "SELECT 1 FROM run WHERE no = ?1 FOR NO KEY UPDATE", run_no
            stripped = yield from self._strip_some(
                run_no, place, limit_rows=limit_rows, limit_bytes=limit_bytes
            )
            yield from self._put_stripped(run_no, stripped)
            if stripped.summary is not None:
                sql = f"UPDATE run SET error = ?1 WHERE no = ?2 AND {ENDED}"
                yield sql, RunFacts.of(stripped.summary).error, run_no
            return stripped.place

        return await self._statements.write(work)

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
