"""SQLite connections for an event loop: one writer thread with group commit, a few reader threads.

SQLite takes one writer at a time, so one thread does all the writing: whatever waits when it comes round goes
into one transaction, and everyone in it is answered after the one commit. Readers have connections of their
own and, in WAL mode, never wait for the writer. What the statements mean is not known here.
"""

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from runglass.errors import RunglassError, StoreError
from runglass.store.migrate import migrate_sqlite

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]

BUSY_TIMEOUT_S = 10.0
READERS = 4
LOOK_UPS = 1
"""Reader threads for `look_up` alone: every request begins with a few, and they take microseconds."""
BATCH = 256
"""Most pieces of work in one commit: bounds how long the first of them waits."""


class _Job(NamedTuple):
    work: Work[Any]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"


class _Outcome(NamedTuple):
    job: _Job
    result: Any
    error: BaseException | None


class Connections:
    """The connections to one database file. Blocking calls never run on the event loop."""

    def __init__(self, path: Path, *, synchronous: Literal["FULL", "NORMAL"]) -> None:
        self.path = path
        self._synchronous = synchronous
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._look_ups: ThreadPoolExecutor | None = None
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []

    async def open(self) -> None:
        """Creates or upgrades the database and starts the threads. Raises StoreError."""
        connection = await asyncio.to_thread(self._open_writer)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="runglass-reader")
        self._look_ups = ThreadPoolExecutor(LOOK_UPS, thread_name_prefix="runglass-look-up")
        self._writer = threading.Thread(target=self._write_loop, args=(connection,), name="runglass-writer")
        self._writer.start()

    async def close(self) -> None:
        """Finishes what is queued, then closes every connection."""
        writer, pools = self._writer, (self._readers, self._look_ups)
        self._writer = self._readers = self._look_ups = None
        if writer is not None:
            self._jobs.put(None)
            await asyncio.to_thread(writer.join)
        for pool in pools:
            if pool is not None:
                await asyncio.to_thread(pool.shutdown)
        for connection in self._opened:
            connection.close()
        self._opened.clear()

    async def write(self, work: Work[Result]) -> Result:
        """Runs `work` in a transaction; returns its result after the commit.

        `work` must raise before its first write, or not at all for reasons of its own: it shares the
        transaction with others and may be run a second time by itself.
        """
        if self._writer is None:
            raise StoreError(f"the store {str(self.path)!r} is not open")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._jobs.put(_Job(work, loop, future))
        return await future

    async def read(self, work: Work[Result]) -> Result:
        """Runs `work` on a read-only connection, in a reader thread."""
        return await self._read_in(self._readers, work)

    async def look_up(self, work: Work[Result]) -> Result:
        """`read` for a few small rows found by an index: it never waits behind reads that take longer."""
        return await self._read_in(self._look_ups, work)

    async def _read_in(self, pool: ThreadPoolExecutor | None, work: Work[Result]) -> Result:
        if pool is None:
            raise StoreError(f"the store {str(self.path)!r} is not open")
        return await asyncio.get_running_loop().run_in_executor(pool, self._read, work)

    def _read(self, work: Work[Result]) -> Result:
        try:
            connection = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._local.connection = self._connect()
                connection.execute("PRAGMA query_only = 1")
                self._opened.append(connection)
            return work(connection)
        except sqlite3.Error as error:
            raise self._store_error(error) from error

    def _open_writer(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Snapshots are for nobody else's eyes; SQLite gives its side files the same permissions.
            self.path.touch(mode=0o600)
            _sync_folders(self.path)
            connection = self._connect()
        except (OSError, sqlite3.Error) as error:
            raise self._store_error(error) from error
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            # What is deleted, as a request whose run has ended, must not live on in free pages of the file.
            # SQLite's own default is OFF, some systems build it with ON.
            connection.execute("PRAGMA secure_delete = ON")
            migrate_sqlite(connection)
        except (sqlite3.Error, StoreError) as error:
            connection.close()
            raise (error if isinstance(error, StoreError) else self._store_error(error)) from error
        self._opened.append(connection)
        return connection

    def _connect(self) -> sqlite3.Connection:
        # Connections are closed by another thread than the one that used them, after that one has ended.
        connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        # Only macOS knows the difference: there a plain sync leaves the data in the cache of the disk.
        connection.execute("PRAGMA fullfsync = ON")
        return connection

    def _write_loop(self, connection: sqlite3.Connection) -> None:
        while (job := self._jobs.get()) is not None:
            batch = [job]
            with contextlib.suppress(queue.Empty):
                while len(batch) < BATCH and (following := self._jobs.get_nowait()) is not None:
                    batch.append(following)
                if len(batch) < BATCH:
                    # It was the mark of the end: finish this batch, then find it again.
                    self._jobs.put(None)
            self._answer(self._commit(connection, batch))

    def _commit(self, connection: sqlite3.Connection, batch: list[_Job]) -> list[_Outcome]:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            # None of them has run: tried one by one, each would wait for the lock as long as all have now.
            return [_Outcome(job, None, self._store_error(error)) for job in batch]
        outcomes = []
        try:
            for job in batch:
                try:
                    outcomes.append(_Outcome(job, job.work(connection), None))
                except RunglassError as refusal:
                    outcomes.append(_Outcome(job, None, refusal))
            connection.execute("COMMIT")
        # Whatever it is, it belongs to the work that raised it: the writer serves everybody and must live.
        except Exception as error:  # noqa: BLE001
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            if len(batch) > 1:
                # One of them broke the transaction: alone, each gets the answer that is its own.
                return [outcome for job in batch for outcome in self._commit(connection, [job])]
            cause = self._store_error(error) if isinstance(error, sqlite3.Error) else error
            return [_Outcome(batch[0], None, cause)]
        return outcomes

    def _answer(self, outcomes: list[_Outcome]) -> None:
        for loop in {outcome.job.loop for outcome in outcomes}:
            mine = [outcome for outcome in outcomes if outcome.job.loop is loop]
            # A loop that has been closed has nobody left who waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_resolve, mine)

    def _store_error(self, error: Exception) -> StoreError:
        return StoreError(f"the store {str(self.path)!r} cannot be used: {error}")


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


def _resolve(outcomes: list[_Outcome]) -> None:
    for job, result, error in outcomes:
        if job.future.done():
            continue
        if error is None:
            job.future.set_result(result)
        else:
            job.future.set_exception(error)
