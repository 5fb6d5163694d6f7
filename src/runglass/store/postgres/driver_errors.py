"""What errors of asyncpg say: a connection is lost, a transaction gave way, a value is wrong."""

import asyncpg

from runglass.errors import PermanentStoreError, StoreError, ValueTooLarge

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


def kind_of(error: Exception) -> type[StoreError]:
    """Whether the same could ever be stored: a server comes back, a value stays as it is."""
    match error:
        case asyncpg.ProgramLimitExceededError():
            return ValueTooLarge
        case asyncpg.DataError() | OverflowError() | UnicodeError():
            return PermanentStoreError
    return StoreError
