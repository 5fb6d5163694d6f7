"""SQLite connections for an event loop: one writer thread with group commit, a few reader threads.

SQLite takes one writer at a time, so one thread does all the writing: all work that waits when it comes round
goes into one transaction, and everyone in it is answered after the one commit. Readers have connections of
their own and, in WAL mode, never wait for the writer. The meaning of the statements is not known here.

More than 300 lines: what is done in one transaction, and what becomes of each part of it if that fails.
"""

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from runglass.errors import (
    CommitUncertain,
    PermanentStoreError,
    RunglassError,
    StoreError,
    StoreFull,
    ValueTooLarge,
)
from runglass.store.data_folder import make_file, make_folder, warn_of_others
from runglass.store.sqlite.migrations import migrate_sqlite, require_upgraded
from runglass.store.sqlite.reserve import Reserve, is_full, reason
from runglass.store.sqlite.worker_threads import WorkerThreads, WorkItem, WorkResult

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]

BUSY_TIMEOUT_S = 10.0
READER_WAIT_MS = 50
"""How long emptying the log may wait for readers of it, and writers for that."""
READERS = 4
LOOK_UPS = 64
"""Most look-ups in one go, in the one thread that does nothing else: every request begins with a few."""
BATCH = 256
"""Most pieces of work in one commit: bounds how long the first of them waits."""


class Connections:
    """The connections to one database file. Work that may wait never runs on the event loop."""

    def __init__(self, path: Path, *, synchronous: Literal["FULL", "NORMAL"]) -> None:
        self.path = path
        self.reserve = Reserve(path)
        self._synchronous = synchronous
        self._writer: WorkerThreads | None = None
        self._readers: WorkerThreads | None = None
        self._look_ups: WorkerThreads | None = None
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []

    async def open(self) -> None:
        """Creates or upgrades the database and starts the threads. Raises StoreError."""
        opening = asyncio.create_task(asyncio.to_thread(self._open_writer))
        try:
            connection = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread cannot be stopped, and nobody else closes what it opens.
            with contextlib.suppress(StoreError):
                await opening
            await self.close()
            raise
        self._writer = WorkerThreads("runglass-writer", partial(self.commit, connection), most=BATCH)
        self._readers = WorkerThreads("runglass-reader", self._read, threads=READERS)
        self._look_ups = WorkerThreads("runglass-look-up", self._read, most=LOOK_UPS)

    async def close(self) -> None:
        """Finishes what is queued, then closes every connection."""
        lanes = [lane for lane in (self._writer, self._readers, self._look_ups) if lane is not None]
        self._writer = self._readers = self._look_ups = None
        # All of them before the first wait: a task cancelled here must leave no thread that never ends.
        for lane in lanes:
            lane.end()

        def finish() -> None:
            for lane in lanes:
                lane.join()
            for connection in self._opened:
                connection.close()
            self._opened.clear()

        # As a whole, which goes on in its thread if the task is cancelled.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, finish))

    def write(self, work: Work[Result]) -> Awaitable[Result]:
        """Runs `work` in a transaction; its result comes after the commit.

        `work` must raise before its first write, or not at all for reasons of its own: it shares the
        transaction with others and may be run a second time by itself.
        """
        return self._put(self._writer, work)

    def remove(self, work: Work[Result]) -> Awaitable[Result]:
        """`write` for work that leaves room behind: on a full disk the reserve is given up for it."""
        return self.write(_Removal(work))

    def read(self, work: Work[Result]) -> Awaitable[Result]:
        """Runs `work` on a read-only connection, in a reader thread."""
        return self._put(self._readers, work)

    def read_at_one_moment(self, work: Work[Result]) -> Awaitable[Result]:
        """`read`, in which all statements see the store as of one moment."""
        return self.read(partial(_at_one_moment, work))

    def look_up(self, work: Work[Result]) -> Awaitable[Result]:
        """`read` for a few small rows found by an index: it never waits behind reads that take longer."""
        return self._put(self._look_ups, work)

    def look_up_at_one_moment(self, work: Work[Result]) -> Awaitable[Result]:
        """`look_up`, in which all statements see the store as of one moment."""
        return self.look_up(partial(_at_one_moment, work))

    async def read_inline(self, work: Work[Result]) -> Result:
        """`look_up` for a row that every request reads, on the event loop itself.

        Such a row is in memory, and reading it takes a small part of the way to a thread and back.
        Nothing waits here: if anything stands in the way, a thread does it.
        """
        if self._look_ups is None:
            return await self.look_up(work)
        try:
            return work(self._own_connection(timeout_s=0))
        except sqlite3.Error:
            return await self.look_up(work)

    async def empty_log(self) -> bool:
        """Moves the write-ahead log into the file and cuts it to nothing; False where a reader is in the way.

        Until then the log has every page as it was, deleted content included.
        """
        # Most of the work is done by this, which keeps no writer out.
        await asyncio.to_thread(self._move_log)
        return bool(await self._put(self._writer, _empty_log))

    def _move_log(self) -> None:
        try:
            with contextlib.closing(self._connect(timeout_s=0)) as connection:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            raise self._store_error(error) from error

    def _put(self, lane: WorkerThreads | None, work: Work[Any]) -> "asyncio.Future[Any]":
        if lane is None:
            raise StoreError(f"the store {str(self.path)!r} is not open")
        return lane.put(work)

    def _read(self, jobs: list[WorkItem]) -> list[WorkResult]:
        # A cancelled task waits no longer; the loop alone changes that, and a change unseen costs one read.
        connection = partial(self._own_connection, timeout_s=BUSY_TIMEOUT_S)
        return [self._do(job, connection) for job in jobs if not job.future.done()]

    def _do(self, job: WorkItem, connection: Callable[[], sqlite3.Connection]) -> WorkResult:
        try:
            return WorkResult(job, job.work(connection()), None)
        except sqlite3.Error as error:
            return WorkResult(job, None, self._store_error(error))
        # Any error belongs to the work that raised it: the thread serves other work and must live.
        except Exception as error:  # noqa: BLE001
            return WorkResult(job, None, error)

    def _own_connection(self, *, timeout_s: float) -> sqlite3.Connection:
        """This thread's connection, to read only."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._connect(timeout_s=timeout_s)
            self._opened.append(connection)
            connection.execute("PRAGMA query_only = 1")
            self._local.connection = connection
        return connection

    def _open_writer(self) -> sqlite3.Connection:
        try:
            make_folder(self.path.parent)
            # Snapshots are for the owner's eyes alone; SQLite gives its side files the same permissions.
            make_file(self.path)
            warn_of_others(self.path)
            _sync_folders(self.path)
            connection = self._connect(timeout_s=BUSY_TIMEOUT_S)
        except (OSError, sqlite3.Error) as error:
            raise self._store_error(error) from error
        try:
            self.reserve.make_room_for(connection)
            require_upgraded(connection, self.path)
            # Only a file that has nothing in it yet takes this on: with it, free pages can be given back. One
            # that has it already would be written to, for which a full disk has no room.
            if connection.execute("PRAGMA page_count").fetchone() == (0,):
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            # Deleted rows, as the request of an ended run, must not live on in free pages of the file.
            # SQLite's own default is OFF, some systems build it with ON.
            connection.execute("PRAGMA secure_delete = ON")
            migrate_sqlite(connection)
            (gives_back,) = connection.execute("PRAGMA auto_vacuum").fetchone()
            if gives_back and not self.reserve.is_given_up and not self.reserve.take():
                log.warning(
                    "the disk has no room for %s: on a full disk nothing can be deleted", self.reserve
                )
        except (sqlite3.Error, StoreError) as error:
            connection.close()
            raise (error if isinstance(error, StoreError) else self._store_error(error)) from error
        self._opened.append(connection)
        return connection

    def _connect(self, *, timeout_s: float) -> sqlite3.Connection:
        # Connections are closed by another thread than the one that used them, after that one has ended.
        connection = sqlite3.connect(
            self.path, timeout=timeout_s, isolation_level=None, check_same_thread=False
        )
        # Only macOS knows the difference: there a plain sync leaves the data in the cache of the disk.
        connection.execute("PRAGMA fullfsync = ON")
        return connection

    def commit(self, connection: sqlite3.Connection, batch: list[WorkItem]) -> list[WorkResult]:
        """What came of each piece of work, done in one transaction of the thread that writes."""
        # A checkpoint is the one thing that cannot be done in a transaction.
        if apart := [job for job in batch if job.work is _empty_log]:
            together = [job for job in batch if job.work is not _empty_log]
            before = self.commit(connection, together) if together else []
            return before + [self._do(job, lambda: connection) for job in apart]
        if self.reserve.is_given_up:
            others = [job for job in batch if not isinstance(job.work, _Removal)]
            if others and not self.reserve.take():
                # Written now, they would take the room from the removals that are to make more of it.
                fault = self._store_error(sqlite3.OperationalError("database or disk is full"), StoreFull)
                removals = [job for job in batch if isinstance(job.work, _Removal)]
                done = self.commit(connection, removals) if removals else []
                return done + [WorkResult(job, None, fault) for job in others]
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            # None of them has run: tried one by one, each would wait for the lock as long as all have now.
            return [WorkResult(job, None, self._store_error(error)) for job in batch]
        outcomes: list[WorkResult] = []
        committing = False
        try:
            for job in batch:
                try:
                    outcomes.append(WorkResult(job, job.work(connection), None))
                except RunglassError as refusal:
                    outcomes.append(WorkResult(job, None, refusal))
            committing = True
            connection.execute("COMMIT")
        # Any error belongs to the work that raised it: the writer serves other work and must live.
        except Exception as error:  # noqa: BLE001
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            if len(batch) > 1:
                # One of them broke the transaction: alone, each gets the answer that is its own.
                return [outcome for job in batch for outcome in self.commit(connection, [job])]
            if is_full(error) and isinstance(batch[0].work, _Removal) and self.reserve.give_up():
                # First of all the log is moved into the file, which may have to grow for that.
                with contextlib.suppress(sqlite3.Error):
                    _empty_log(connection)
                return self.commit(connection, batch)
            if committing and not is_full(error):
                return [WorkResult(batch[0], None, self._store_error(error, CommitUncertain))]
            refused = isinstance(error, (sqlite3.Error, OverflowError, UnicodeError))
            return [WorkResult(batch[0], None, self._store_error(error) if refused else error)]
        return outcomes

    def _store_error(self, error: Exception, kind: type[StoreError] | None = None) -> StoreError:
        fault = (kind or _kind_of(error))(f"the store {str(self.path)!r} cannot be used: {reason(error)}")
        fault.__cause__ = error
        return fault


def _at_one_moment(work: Work[Result], db: sqlite3.Connection) -> Result:
    db.execute("BEGIN")
    # Leaves the transaction, well or not; an error on the way out hides none that came before it.
    with db:
        return work(db)


def _empty_log(connection: sqlite3.Connection) -> bool:
    (before_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
    # No writer can write meanwhile, so a reader that takes its time is not waited for.
    connection.execute(f"PRAGMA busy_timeout = {READER_WAIT_MS}")
    try:
        (in_the_way, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not in_the_way
    finally:
        connection.execute(f"PRAGMA busy_timeout = {before_ms}")


class _Removal(partial[Any]):
    """Work for which the reserve may be given up."""


def _kind_of(error: Exception) -> type[StoreError]:
    """Whether the same could ever be stored: a disk is freed or mended, a value stays as it is."""
    if is_full(error):
        return StoreFull
    match error:
        # SQLite's own limit, or that of the C interface before it.
        case sqlite3.DataError():
            return ValueTooLarge
        case OverflowError() if "longer than" in str(error):
            return ValueTooLarge
        case OverflowError() | UnicodeError():
            return PermanentStoreError
    return StoreError


def _sync_folders(path: Path) -> None:
    """Makes the names of the file and of its folders safe: a new name is lost with the power until then."""
    for folder in path.absolute().parents:
        # Not every system lets a folder be opened or synced, nor every user: then it is as safe as it gets.
        with contextlib.suppress(OSError):
            opened = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)
