"""The store of a single machine: one SQLite file.

Threads and transactions are in `connections.py`; the queries, each beside its row mapping, are in
`sqlite_catalog.py` and `sqlite_runs.py`; how runs and content go again, in `sqlite_removal.py` and
`sqlite_expiry.py`; who changed what, in `sqlite_audit.py`.
"""

from pathlib import Path
from typing import Literal, Self

from runglass.store.connections import Connections
from runglass.store.sqlite_audit import Audit
from runglass.store.sqlite_catalog import Catalog
from runglass.store.sqlite_expiry import Expiry
from runglass.store.sqlite_removal import Removal
from runglass.store.sqlite_runs import Runs


class SqliteStore(Catalog, Runs, Expiry, Removal, Audit):
    """A store in one file. `synchronous`: a commit survives a power cut (FULL) or a crash of the process."""

    def __init__(self, path: Path, *, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> None:
        self._db = Connections(path, synchronous=synchronous)

    async def __aenter__(self) -> Self:
        await self._db.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._db.close()
