"""Wake-ups by NOTIFY: one connection that listens and one that sends, for the whole process.

They are not the store's, so no append waits for them. Behind a pooler that hands out connections for one
transaction each, nothing is heard; `process_bus.py` notices that.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import asyncpg

from runglass.bus.carrier import CLOSE_S, CONNECT_S, SEND_S, BusAway, Hear, Send, key_of
from runglass.config.address import shown_address
from runglass.support.logs import plain_cause

_LOST = (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What asyncpg raises where there is no connection, or no more; with the time-outs, which are OSErrors."""
# That of the tables, which need not be in this database. To a role with a schema of its own name that one is
# the current one, though the tables are elsewhere.
_SCHEMA = (
    "SELECT coalesce((SELECT nspname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
    " WHERE pg_class.oid = to_regclass('run')), current_schema())::text"
)
# Who only listens says nothing, and a role may have a limit to that. PostgreSQL before 14 does not know it.
_STAY = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'"


class PostgresCarrier:
    """Carries texts between the processes that work on one schema of the database at `address`."""

    def __init__(self, address: str) -> None:
        self.name = shown_address(address)
        self._address = address

    @asynccontextmanager
    async def connect(self, *, hear: Hear, lost: Hear) -> AsyncIterator[Send]:
        async with AsyncExitStack() as stack:
            try:
                listening = await self._open(stack)
                sending = await self._open(stack)
                channel = f"runglass_{key_of(await listening.fetchval(_SCHEMA))}"
                await listening.add_listener(channel, lambda *notice: hear(notice[-1]))
                for connection in (listening, sending):
                    connection.add_termination_listener(lambda _: lost(f"{self.name} closed the connection"))
            except _LOST as error:
                raise self._away(error) from error

            async def send(text: str) -> None:
                # Nothing that has to last is written, so no disk is waited for; channel and text are of
                # letters that need no quoting. One statement: if it is cut off, no transaction stays open.
                try:
                    await sending.execute(f"SELECT pg_notify('{channel}', '{text}')")
                except _LOST as error:
                    raise self._away(error) from error

            yield send

    async def _open(self, stack: AsyncExitStack) -> Any:
        connection = await asyncpg.connect(
            self._address, timeout=CONNECT_S, command_timeout=SEND_S, statement_cache_size=0
        )
        stack.push_async_callback(_close, connection)
        await connection.execute(_STAY)
        return connection

    def _away(self, error: Exception) -> BusAway:
        return BusAway(f"{self.name}: {plain_cause(error)}")


async def _close(connection: Any) -> None:
    # A connection that is lost cannot say goodbye.
    with suppress(*_LOST):
        await connection.close(timeout=CLOSE_S)
