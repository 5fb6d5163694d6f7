"""The store of a single machine: one SQLite file.

Threads and transactions are in `connections.py`; the queries, each beside its row mapping, are in `runs.py`,
`run_lists.py`, `attempt_pages.py`, `kept_outlines.py`, `checkpoints.py`, `calls.py` and `leases.py`; how runs
and content go again, in `removal.py` and `expiry.py`. What both kinds of store do alike is not here.
"""

from pathlib import Path
from typing import Literal, Self

from runglass.store.audit import Audit
from runglass.store.catalog import Catalog
from runglass.store.keys import Keys
from runglass.store.records import Setback
from runglass.store.sqlite.attempt_pages import AttemptPages
from runglass.store.sqlite.budgets import PROJECT, Budgets
from runglass.store.sqlite.calls import Calls
from runglass.store.sqlite.checkpoints import Checkpoints
from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.expiry import Expiry
from runglass.store.sqlite.imports import Imports
from runglass.store.sqlite.kept_outlines import KeptOutlines
from runglass.store.sqlite.leases import Leases
from runglass.store.sqlite.overview import Overview
from runglass.store.sqlite.removal import Removal
from runglass.store.sqlite.run_lists import RunLists
from runglass.store.sqlite.runs import Runs
from runglass.store.sqlite.sql_helpers import perform
from runglass.store.statements import Statements
from runglass.support.clock import SystemClock


class SqliteStore(
    Catalog,
    Keys,
    Runs,
    RunLists,
    AttemptPages,
    KeptOutlines,
    Checkpoints,
    Calls,
    Budgets,
    Imports,
    Leases,
    Expiry,
    Removal,
    Audit,
    Overview,
):
    """A store in one file. `synchronous`: a commit survives a power cut (FULL) or a crash of the process."""

    _project = PROJECT
    _large_value = "zeroblob(10000)"

    def __init__(self, path: Path, *, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> None:
        self._db = Connections(path, synchronous=synchronous)
        self._statements = Statements(self._db, perform)
        self._importing = set()
        self._holds = {}
        self.clock = SystemClock()

    @property
    def generation(self) -> int:
        # The file is of one process, which ends before another file is put in its place.
        return 0

    async def note_setback(self, run_id: str, project_id: int, *, had: int) -> bool:
        """Keeps nothing, for the same reason."""
        return True

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
