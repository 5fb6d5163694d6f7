"""The store of a single machine: one SQLite file.

Threads and transactions are in `connections.py`; the queries that SQLite has for itself are in `runs.py`,
`query_index.py`, `leases.py` and `removal.py`. What both kinds of store do alike is not here.
"""

from pathlib import Path
from typing import Literal, Self

from runglass.store.catalog import SqlCatalog
from runglass.store.content_removal import ContentRemoval
from runglass.store.overview import Overview
from runglass.store.query_search import USUAL, SearchLimits
from runglass.store.recordings import RecordedTraces
from runglass.store.records import Setback
from runglass.store.run_lists import RunLists
from runglass.store.span_cursors import SpanCursors
from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.dialect import SQLITE
from runglass.store.sqlite.leases import Leases
from runglass.store.sqlite.query_index import SEARCH_SQL
from runglass.store.sqlite.removal import SqliteRemoval
from runglass.store.sqlite.runs import SqliteRunLog
from runglass.store.sqlite.sql_helpers import perform
from runglass.store.statements import Statements
from runglass.support.clock import SystemClock


class SqliteStore(
    SqlCatalog,
    SqliteRunLog,
    Leases,
    RunLists,
    RecordedTraces,
    Overview,
    SqliteRemoval,
    ContentRemoval,
    SpanCursors,
):
    """A store in one file. `synchronous`: a commit survives a power cut (FULL) or a crash of the process."""

    _sql = SQLITE
    _search_sql = SEARCH_SQL
    pool = None

    def __init__(
        self, path: Path, *, synchronous: Literal["FULL", "NORMAL"] = "FULL", search: SearchLimits = USUAL
    ) -> None:
        self._search = search
        self._db = Connections(path, synchronous=synchronous)
        self._statements = Statements(self._db, perform)
        self._importing = set()
        self._holds = {}
        self.clock = SystemClock()

    @property
    def generation(self) -> int:
        # The file is of one process, which ends before another file is put in its place.
        return 0

    async def note_setback(self, run_id: str, project_id: int, *, had: int) -> None:
        """Keeps nothing, for the same reason."""

    async def setbacks(self, run_id: str) -> list[Setback]:
        return []

    @property
    def connections(self) -> Connections:
        """The connections to the file, for statements that are of SQLite alone, such as pragmas."""
        return self._db

    async def __aenter__(self) -> Self:
        await self._db.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._db.close()
