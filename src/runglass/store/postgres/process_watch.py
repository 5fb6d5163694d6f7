"""Whether another process runs flows on the same database, which is one too many as yet.

Wake-ups, budgets and places of runs are counted within a process. The leases tell of others, and no lock
does, since a transaction pooler lets no session hold one.
"""

import logging
from typing import Protocol

from runglass.clock import Clock, iso
from runglass.errors import StoreError
from runglass.store.data_lock import DataInUse

_log = logging.getLogger(__name__)

POLL_S = 0.1


class SharedStore(Protocol):
    async def other_leases(self, *, now: str) -> dict[str, str]: ...


class ProcessWatch:
    """Watches the leases in the store; each process renews its own at least every `lease_s` seconds."""

    def __init__(self, store: SharedStore, clock: Clock, *, name: str, lease_s: float) -> None:
        self._store = store
        self._clock = clock
        self._name = name
        self._lease_s = lease_s

    async def wait_until_alone(self) -> None:
        """Returns when no process has a lease; that of one that was killed runs out.

        Raises DataInUse where a lease is renewed or a new one is taken, and StoreError.
        """
        first = await self._leases()
        if first:
            _log.warning(
                "a process has a lease on %s until %s; if it is gone, the start goes on then",
                *(self._name, max(first.values())),
            )
        while found := await self._leases():
            if found.items() - first.items():
                raise self._in_use()
            await self._clock.sleep(POLL_S)

    async def watch_forever(self) -> None:
        """Raises DataInUse when another process has a lease."""
        while True:
            await self._clock.sleep(self._lease_s)
            try:
                others = await self._leases()
            except StoreError as error:
                _log.warning("whether other servers run on %s cannot be told: %s", self._name, error)
                continue
            if others:
                raise self._in_use()

    async def _leases(self) -> dict[str, str]:
        return await self._store.other_leases(now=iso(self._clock.now()))

    def _in_use(self) -> DataInUse:
        return DataInUse(
            f"another process runs flows on {self._name!r}, and several on one database do not work together"
            " yet; stop one of them, or give each a database of its own"
        )
