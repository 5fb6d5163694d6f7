"""The protocol of every store, put together of six; whoever uses only one of them asks for that one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, Self

import msgspec

from runglass.errors import RunUnreadable
from runglass.store.overview import PoolUse
from runglass.store.protocols.catalog import Catalog
from runglass.store.protocols.recordings import Recordings
from runglass.store.protocols.run_index import RunIndex
from runglass.store.protocols.run_log import RunLog
from runglass.store.protocols.run_queue import RunQueue
from runglass.store.protocols.upkeep import Upkeep
from runglass.support.clock import Clock


@contextmanager
def decoding(run_id: str) -> Iterator[None]:
    """Inside the block, stored data of a run is decoded: RunUnreadable where it cannot be."""
    try:
        yield
    except (
        msgspec.MsgspecError,
        ValueError,
        LookupError,
        TypeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise RunUnreadable(run_id, str(error) or type(error).__name__) from error


class Store(Catalog, RunLog, RunQueue, RunIndex, Recordings, Upkeep, Protocol):
    """Runs, flows, keys and projects. Every method raises StoreError if the store cannot be reached."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...

    @property
    def pool(self) -> PoolUse | None:
        """The connections of this process; None where a store has none that could run out."""

    @property
    def clock(self) -> Clock:
        """The clock that all processes of the store go by: what one dates another compares with now.

        It is right from when the store is open.
        """
