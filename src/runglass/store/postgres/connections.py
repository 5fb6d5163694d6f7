"""Connections to one PostgreSQL: reads, and transactions that end known.

A connection may die between a COMMIT and its answer. So each transaction leaves a mark, and whoever has
lost the answer asks for it: what was committed is never done again, and what was not is never taken for
done. Nothing that is needed is kept in a session (no settings, no locks), so a pooler may stand between that
hands out connections for one transaction each. The meaning of the statements is not known here.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import asyncpg

from runglass.config.address import check_files, shown_address
from runglass.errors import CommitUncertain, StoreError, StoreUnreachable, WrongStoreAddress
from runglass.store.overview import PoolUse
from runglass.store.postgres.driver import FULL, LOST, ROLLED_BACK, PreparingConnect, advice_on, kind_of
from runglass.store.postgres.server_watch import ServerWatch
from runglass.support.clock import Clock, SharedClock, SystemClock
from runglass.support.logs import plain_cause

Result = TypeVar("Result")

CONNECTIONS = 10
"""Most connections of one process."""
PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
"""Before a lost connection's work is tried again: the first, and the longest, as each is twice as long."""
ROLLBACK_S = 2.0
"""A connection on which a transaction cannot be ended for longer is closed."""


class Db(Protocol):
    """What the statements of the store need of a connection. `timeout` is in place of its limit."""

    async def execute(self, query: str, *values: Any, timeout: float | None = None) -> str: ...
    async def executemany(self, query: str, values: Sequence[Sequence[Any]]) -> None: ...
    async def fetch(self, query: str, *values: Any, timeout: float | None = None) -> list[Any]: ...
    async def fetchval(self, query: str, *values: Any) -> Any: ...
    def cursor(self, query: str, *values: Any, prefetch: int) -> AsyncIterable[Any]: ...


class Reader:
    """A connection to read on. A text with a zero byte is NULL to it: no stored text is equal to that."""

    def __init__(self, db: Db) -> None:
        self._db = db
        self.execute, self.executemany, self.fetchval = db.execute, db.executemany, db.fetchval

    async def fetch(self, query: str, *values: Any, timeout: float | None = None) -> list[Any]:
        return await self._db.fetch(query, *map(_stored, values), timeout=timeout)

    def cursor(self, query: str, *values: Any, prefetch: int) -> AsyncIterable[Any]:
        return self._db.cursor(query, *map(_stored, values), prefetch=prefetch)


def _stored(value: Any) -> Any:
    """The value; NULL for a text that no column can hold, in lists as well."""
    if isinstance(value, list):
        return [_stored(each) for each in value]
    return None if isinstance(value, str) and "\0" in value else value


Work = Callable[[Db], Awaitable[Result]]


class ConnectionLost(StoreUnreachable):
    """No answer, or no connection: what was sent may have been done or not."""


class NoFurtherConnection(ConnectionLost):
    """The server takes no more connections, of this role or at all. Nothing was sent."""


class GaveWay(StoreError):
    """Nothing was done, for another transaction's sake."""


class Connections:
    """The connections to one database. `patience_s`: how long a call waits for a database that is away.

    `clock` is that of this machine. An answer that takes longer than `statement_s` is given up: the server
    may be gone without a word.
    """

    def __init__(
        self, address: str, *, patience_s: float = 10.0, clock: Clock | None = None, statement_s: float = 30.0
    ) -> None:
        self.name = shown_address(address)
        """The address without user and password, for messages."""
        self.clock = SharedClock(clock or SystemClock())
        """The clock of the database: asked with each new connection and each renewal of a lease."""
        self.starts = ServerWatch(self.name, self.clock)
        self._address = address
        self._patience_s = patience_s
        self._statement_s = statement_s
        self._pool: Any = None
        self._is_away = False

    async def open(self) -> None:
        """Lets calls connect, each when it needs to. Raises WrongStoreAddress for an address that is none."""
        try:
            await asyncio.to_thread(check_files, self._address)
            self._pool = await asyncpg.create_pool(
                self._address,
                min_size=0,
                max_size=CONNECTIONS,
                connect=PreparingConnect(),
                init=self.starts.initialize,
                command_timeout=self._statement_s,
                reset=_keep_session,
            )
        except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise self._store_error(error, WrongStoreAddress) from error

    async def close(self) -> None:
        """Closes every connection once it is idle."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    @property
    def pool(self) -> PoolUse | None:
        """How many connections there are, None while the store is not open."""
        if self._pool is None:
            return None
        size = self._pool.get_size()
        return PoolUse(size - self._pool.get_idle_size(), size, CONNECTIONS)

    async def read(self, work: Work[Result]) -> Result:
        """Runs `work` on a connection, and again on another one where that is lost."""
        return await self._patiently(lambda: self._perform(lambda db: work(Reader(db))))

    look_up = read_inline = read

    async def read_at_one_moment(self, work: Work[Result]) -> Result:
        """`read`, in which all statements see the store as of one moment."""

        async def snapshot(db: Db) -> Result:
            await db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            result = await work(db)
            await db.execute("COMMIT")
            return result

        return await self.read(snapshot)

    look_up_at_one_moment = read_at_one_moment

    async def write(self, work: Work[Result]) -> Result:
        """Runs `work` in a transaction; returns its result after the commit.

        `work` may be run again, after a transaction that is sure to have done nothing. Raises CommitUncertain
        if the database stays away before it has said whether there was a commit.
        """
        return await self._patiently(lambda: self._transaction(work))

    remove = write

    async def repeat(self, work: Work[Result], *, patience_s: float | None = None) -> Result:
        """Runs `work` until there is an answer: one statement that, sent again, says what the first one did.

        With a patience of its own it waits that long in any case. Raises CommitUncertain if there is none.
        """
        sent = False

        async def send(db: Db) -> Result:
            nonlocal sent
            sent = True
            return await work(db)

        try:
            return await self._patiently(lambda: self._perform(send), patience_s)
        except ConnectionLost as error:
            if not sent:
                raise
            raise CommitUncertain(str(error)) from error

    async def _transaction(self, work: Work[Result]) -> Result:
        mark = uuid.uuid4()
        results: list[Result] = []

        async def transaction(db: Db) -> None:
            # Compiling a claim takes longer than claiming, and a pooler lets no session keep settings. What
            # is decided behind a lock is read there; in REPEATABLE READ, which a role may prefer, it would be
            # seen as it was before.
            await db.execute("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL jit = off")
            results.append(await work(db))
            # One message, so that the mark takes no round trip of its own.
            await db.execute(f"INSERT INTO commit_mark (id, is_committed) VALUES ('{mark}', true); COMMIT")

        try:
            await self._perform(transaction)
        except ConnectionLost:
            if not results or not await self._is_committed(mark):
                raise
        return results[0]

    async def _is_committed(self, mark: uuid.UUID) -> bool:
        """Whether the transaction with this mark was committed; if not, it never will be."""

        async def work(db: Db) -> bool:
            # Waits for the end of the transaction where that goes on, on a connection which is lost to us
            # alone.
            await db.execute(
                "INSERT INTO commit_mark (id, is_committed) VALUES ($1, false) ON CONFLICT DO NOTHING", mark
            )
            return bool(await db.fetchval("SELECT is_committed FROM commit_mark WHERE id = $1", mark))

        try:
            return await self.read(work)
        except ConnectionLost as error:
            raise CommitUncertain(str(error)) from error

    async def _patiently(
        self, attempt: Callable[[], Awaitable[Result]], patience_s: float | None = None
    ) -> Result:
        """The result of the attempt, made again while the database is away and the patience lasts.

        Once that was in vain, one attempt has to do, until one succeeds: callers hear at once. But those with
        a patience of their own do not.
        """
        until_s = time.monotonic() + (self._patience_s if patience_s is None else patience_s)
        pause_s = PAUSE_S
        while True:
            try:
                result = await attempt()
            except (ConnectionLost, GaveWay) as error:
                is_lost = isinstance(error, ConnectionLost) and not isinstance(error, NoFurtherConnection)
                if time.monotonic() + pause_s > until_s:
                    self._is_away = self._is_away or is_lost
                    raise
                if self._is_away and is_lost and patience_s is None:
                    raise
            else:
                self._is_away = False
                return result
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _perform(self, work: Work[Result]) -> Result:
        """Runs `work` on a connection of the pool. Raises ConnectionLost, GaveWay, StoreError."""
        if self._pool is None:
            raise StoreError(f"the store {self.name!r} is not open")
        try:
            async with self._pool.acquire(timeout=self._patience_s) as connection:
                try:
                    return await work(connection)
                except BaseException as error:
                    is_cancelled = isinstance(error, asyncio.CancelledError)
                    await _end_transaction(connection, is_cancelled=is_cancelled)
                    raise
        except asyncpg.ClientConfigurationError as error:
            raise self._store_error(error, WrongStoreAddress) from error
        except FULL as error:
            raise self._store_error(error, NoFurtherConnection) from error
        except LOST as error:
            if self._pool is not None:
                # The others are lost for the same reason; each is made anew before it is used again.
                await self._pool.expire_connections()
            raise self._store_error(error, ConnectionLost) from error
        except ROLLED_BACK as error:
            raise self._store_error(error, GaveWay) from error
        except (asyncpg.PostgresError, OverflowError, UnicodeError) as error:
            raise self._store_error(error) from error

    def _store_error(self, error: Exception, kind: type[StoreError] | None = None) -> StoreError:
        text = str(error) if isinstance(error, asyncpg.PostgresError) else plain_cause(error)
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            text = f"it takes no writes, as a standby does; name the host that does ({text})"
        return (kind or kind_of(error))(f"the store {self.name!r} cannot be used: {text}{advice_on(error)}")


async def _end_transaction(connection: Any, *, is_cancelled: bool) -> None:
    """Leaves no transaction on a connection that goes back: asyncpg would end it and log an error.

    Of the one in which the server is between the parsing of a statement and its execution it knows nothing.
    """
    try:
        if is_cancelled or connection.is_in_transaction():
            async with asyncio.timeout(ROLLBACK_S):
                await connection.execute("ROLLBACK")
    except (*LOST, asyncpg.PostgresError):
        # One that is closed already has nothing to be asked, nor to be closed.
        with suppress(asyncpg.InterfaceError):
            connection.terminate()


async def _keep_session(_: Any) -> None:
    """What is done with a connection that goes back to the pool: no session has anything to be reset."""
