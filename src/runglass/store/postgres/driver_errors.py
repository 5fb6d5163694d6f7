"""What errors of asyncpg say: a connection is lost, a transaction gave way, a value is wrong."""

import asyncpg

from runglass.errors import PermanentStoreError, StoreError, StoreFull, ValueTooLarge

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
