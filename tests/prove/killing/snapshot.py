"""The data as the kill left it, read from a copy: to open the files themselves would mend them.

Plain SQL on purpose: what the store's own queries make of the tables is under trial, too.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec


class RunRow(NamedTuple):
    no: int
    id: str
    flow: str
    status: str
    head: int
    tag: str
    trigger: str
    summary: bytes


class Data(Protocol):
    """What a store has of the runs under trial, at one moment at which nobody writes."""

    def runs(self) -> list[RunRow]: ...

    def events(self, run: RunRow, *, after: int = 0) -> list[tuple[int, bytes]]: ...

    def steps(self, run: RunRow) -> list[bytes]:
        """The latest attempt of each step, in order of first start."""

    def attempts(self, run: RunRow) -> list[bytes]: ...

    def result(self, run: RunRow) -> object:
        """What the run's caller is owed, decoded; None where there is nothing."""

    def leftovers(self) -> list[tuple[str, str]]:
        """What should have been dropped with the end of its run: what it is, and the run's id."""

    def faults(self) -> list[str]:
        """What the database finds wrong with itself."""


_RUNS = (
    "SELECT run.no, run.id, flow.slug, run.status, run.head, run.session_id, run.trigger_type, run.summary"
    " FROM run JOIN flow ON flow.id = run.flow_id ORDER BY run.no"
)
_ATTEMPTS = (
    "SELECT data FROM step WHERE run_no = ?1 UNION ALL SELECT data FROM step_attempt WHERE run_no = ?1"
)
_LEFTOVERS = (
    "SELECT 'checkpoint', run.id FROM checkpoint JOIN run ON run.no = checkpoint.run_no"
    " WHERE run.status IN ({0})"
    " UNION SELECT 'request', run.id FROM run_request JOIN run ON run.no = run_request.run_no"
    " WHERE run.status IN ({0})"
).format("'completed', 'failed', 'cancelled'")


class Snapshot:
    """Everything that a server started on this data would find."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    @classmethod
    @contextmanager
    def of(cls, database: Path) -> Iterator["Snapshot"]:
        """A copy of the database file and its log, until the block ends. Nobody may be writing to them."""
        copy = database.with_name("copy.db")
        for suffix in ("", "-wal"):
            source = database.with_name(database.name + suffix)
            target = copy.with_name(copy.name + suffix)
            target.unlink(missing_ok=True)
            if source.exists():
                shutil.copyfile(source, target)
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            yield cls(connection)

    def runs(self) -> list[RunRow]:
        return [RunRow._make(row) for row in self._database.execute(_RUNS)]

    def events(self, run: RunRow, *, after: int = 0) -> list[tuple[int, bytes]]:
        sql = "SELECT seq, data FROM event WHERE run_no = ? AND seq > ? ORDER BY seq"
        return self._database.execute(sql, (run.no, after)).fetchall()

    def steps(self, run: RunRow) -> list[bytes]:
        sql = "SELECT data FROM step WHERE run_no = ? ORDER BY position"
        return [data for (data,) in self._database.execute(sql, (run.no,))]

    def attempts(self, run: RunRow) -> list[bytes]:
        return [data for (data,) in self._database.execute(_ATTEMPTS, (run.no,))]

    def result(self, run: RunRow) -> object:
        sql = "SELECT result FROM run_outcome WHERE run_no = ?"
        row = self._database.execute(sql, (run.no,)).fetchone()
        return None if row is None or row[0] is None else msgspec.json.decode(row[0])

    def leftovers(self) -> list[tuple[str, str]]:
        return self._database.execute(_LEFTOVERS).fetchall()

    def faults(self) -> list[str]:
        found = [str(row[0]) for row in self._database.execute("PRAGMA integrity_check")]
        return [] if found == ["ok"] else found
