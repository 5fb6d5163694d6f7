"""Connections that keep their statements prepared, wherever no pooler stands between.

What is prepared costs one round trip in place of two, and is parsed once in place of twice each time. A
transaction pooler hands out another session of the server for each transaction, in which a statement of that
name is missing, or is somebody else's. It is told by the number of the server process: a pooler makes one up.
"""

from typing import Any

import asyncpg

STATEMENTS = 100
"""Most statements that a connection keeps prepared."""
# Planned each time for the values at hand, as if not prepared: some projects have few runs, others many. No
# statement goes on for so long that it would be worth compiling. By an isolation that the role prefers,
# appends to one run at the same time would be refused, and made again.
_OWN_SESSION = (
    "SELECT set_config('plan_cache_mode', 'force_custom_plan', false), set_config('jit', 'off', false),"
    " set_config('default_transaction_isolation', 'read committed', false) WHERE pg_backend_pid() = {}"
)


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
