"""What runs were asked for, read together: the runs of one claim are read in one statement."""

import asyncio
from collections.abc import Mapping

from runglass.store.postgres.connections import Connections
from runglass.store.postgres.sql_helpers import every

_REQUESTS = "SELECT run_no, request FROM run_request WHERE run_no = ANY ($1::bigint[])"


class RunRequests:
    """Reads the requests that are asked for in the same turn of the event loop with one statement."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections
        self._wanted: set[int] = set()
        self._next: asyncio.Task[Mapping[int, bytes]] | None = None

    async def read(self, run_no: int) -> bytes | None:
        """The request of the run; None where it is not known any more. Raises StoreError."""
        self._wanted.add(run_no)
        if self._next is None:
            self._next = asyncio.create_task(self._read_wanted())
        # That one of those who wait is cancelled must not take it from the others.
        return (await asyncio.shield(self._next)).get(run_no)

    async def _read_wanted(self) -> Mapping[int, bytes]:
        wanted, self._wanted, self._next = list(self._wanted), set(), None
        return dict(await self._db.read(every(lambda row: (int(row[0]), bytes(row[1])), _REQUESTS, wanted)))
