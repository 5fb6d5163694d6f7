"""The driver, asyncpg: how it connects, and what its errors say.

Connections keep their statements prepared wherever no pooler stands between. What is prepared costs one round
trip in place of two, and is parsed once in place of twice each time. A transaction pooler hands out another
session of the server for each transaction, in which a statement of that name is missing, or is somebody
else's. It is told by the number of the server process: a pooler makes one up.
"""

from typing import Any

import asyncpg

from runglass.errors import PermanentStoreError, StoreError, StoreFull, ValueTooLarge

STATEMENTS = 100
"""Most statements that a connection keeps prepared."""
# Planned each time for the values at hand, as if not prepared: some projects have few runs, others many. No
# statement goes on for so long that it would be worth compiling. By an isolation that the role prefers,
# appends to one run at the same time would be refused, and made again.
_OWN_SESSION = (
    "SELECT set_config('plan_cache_mode', 'force_custom_plan', false), set_config('jit', 'off', false),"
    " set_config('default_transaction_isolation', 'read committed', false) WHERE pg_backend_pid() = {}"
)
LOST = (
    # With the time-outs, of which one may be the network's.
    OSError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    # The server has ended the session, and the network has not told yet: nothing can be sent any more.
    asyncpg.InternalClientError,
    # A primary that has become a standby, or the pooler has not noticed yet.
    asyncpg.ReadOnlySQLTransactionError,
)
"""No answer, or no connection; what was sent may have been done."""
FULL = (asyncpg.TooManyConnectionsError,)
"""No further connection, and nothing was sent; those that there are serve on."""
ROLLED_BACK = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    # Where the role has a `lock_timeout`.
    asyncpg.LockNotAvailableError,
    # A migration has changed what the statement returns; it is prepared anew the next time.
    asyncpg.InvalidCachedStatementError,
)
"""A transaction that had to give way to another one."""


class PreparingConnect:
    """Connects, as `asyncpg.connect` does with the same arguments, and as the way to the server allows."""

    def __init__(self) -> None:
        self._is_pooled = False

    async def __call__(self, *where: Any, **options: Any) -> Any:
        if not self._is_pooled:
            connection = await asyncpg.connect(*where, **options, statement_cache_size=STATEMENTS)
            try:
                is_own = await connection.execute(_OWN_SESSION.format(connection.get_server_pid()))
            except BaseException:
                connection.terminate()
                raise
            if is_own == "SELECT 1":
                return connection
            await connection.close()
            self._is_pooled = True
        return await asyncpg.connect(*where, **options, statement_cache_size=0)


def kind_of(error: Exception) -> type[StoreError]:
    """Whether the same could ever be stored: a server comes back, a value stays as it is."""
    match error:
        case asyncpg.DiskFullError():
            return StoreFull
        case asyncpg.ProgramLimitExceededError():
            return ValueTooLarge
        case asyncpg.DataError() | OverflowError() | UnicodeError():
            return PermanentStoreError
    return StoreError


def advice_on(error: Exception) -> str:
    """What an operator can do about a refusal of PostgreSQL, to be put behind what it says."""
    match error:
        case asyncpg.InsufficientPrivilegeError():
            return (
                "; the user must own the tables of Runglass, or be allowed to make them (GRANT CREATE ON"
                " SCHEMA public), or be granted what docs/operations.md lists for a role without that right"
            )
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            return "; a password comes from RUNGLASS_STORE, runglass.toml, PGPASSWORD or ~/.pgpass"
        case asyncpg.InvalidCatalogNameError():
            return "; it has to be made first, with CREATE DATABASE or createdb"
    return ""
