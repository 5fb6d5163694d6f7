"""The store of many machines: one PostgreSQL, which any number of processes share.

Connections and transactions are in `connections.py`, the schema in `sql/` and `migrations.py`. Appends are
written together (`append.py`), by a function of the database, and new runs as well (`run_creation.py`). The
queries that PostgreSQL has for itself are in `runs.py`, `query_index.py`, `leases.py` and `removal.py`. What
both kinds of store do alike is not here.
"""

import uuid
from typing import Self

from runglass.store.catalog import SqlCatalog
from runglass.store.content_removal import ContentRemoval
from runglass.store.overview import Overview, PoolUse
from runglass.store.postgres.append import AppendQueue
from runglass.store.postgres.connections import Connections
from runglass.store.postgres.dialect import POSTGRES
from runglass.store.postgres.leases import Leases
from runglass.store.postgres.migrations import migrate_postgres, migrations, months_ahead
from runglass.store.postgres.query_index import SEARCH_SQL
from runglass.store.postgres.removal import PostgresRemoval
from runglass.store.postgres.run_creation import EXECUTED, RECORDED, RunCreation, RunRequests
from runglass.store.postgres.runs import PostgresRunLog
from runglass.store.postgres.sql_helpers import perform
from runglass.store.query_search import USUAL, SearchLimits
from runglass.store.recordings import RecordedTraces
from runglass.store.run_lists import RunLists
from runglass.store.span_cursors import SpanCursors
from runglass.store.statements import Statements
from runglass.support.clock import Clock


class PostgresStore(
    SqlCatalog,
    PostgresRunLog,
    Leases,
    RunLists,
    RecordedTraces,
    Overview,
    PostgresRemoval,
    ContentRemoval,
    SpanCursors,
):
    """A store in a PostgreSQL database, at an address as `postgresql://user@host/database`.

    `patience_s`: how long a call waits for a database that is away, and `append_patience_s` an append; by
    default as long. `clock` is that of this machine. Unless it `migrates`, a database of an older version is
    refused.
    """

    _sql = POSTGRES
    _search_sql = SEARCH_SQL

    def __init__(
        self,
        address: str,
        *,
        patience_s: float = 10.0,
        append_patience_s: float | None = None,
        clock: Clock | None = None,
        migrates: bool = True,
        search: SearchLimits = USUAL,
    ) -> None:
        self._search = search
        self._migrates = migrates
        self._db = Connections(address, patience_s=patience_s, clock=clock)
        self.clock = self._db.clock
        self._appends = AppendQueue(self._db, patience_s=append_patience_s or patience_s)
        self._creation = RunCreation(self._db, EXECUTED)
        self._recordings = RunCreation(self._db, RECORDED)
        self._requests = RunRequests(self._db)
        self._owner = None
        self._statements = Statements(self._db, perform)
        self._importing = set()
        self._months_gone = set()
        self._holder = uuid.uuid4()
        self._months_ahead = months_ahead()

    async def __aenter__(self) -> Self:
        await self._db.open()
        try:
            await migrate_postgres(self._db, migrations(), migrates=self._migrates)
            await self._db.read(self._db.starts.begin)
        except BaseException:
            await self._db.close()
            raise
        return self

    @property
    def pool(self) -> PoolUse | None:
        return self._db.pool

    @property
    def generation(self) -> int:
        return self._db.starts.generation

    async def __aexit__(self, *exc: object) -> None:
        await self._creation.aclose()
        await self._recordings.aclose()
        await self._appends.aclose()
        await self._db.close()
