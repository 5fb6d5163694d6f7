"""What every store does: the parts that all kinds have in common, put together.

Whoever uses only one of the parts asks for that one.
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import msgspec

from runglass.errors import RunUnreadable
from runglass.log.fold import DAMAGE
from runglass.log.trace import RunSummary
from runglass.store.catalog import Catalog
from runglass.store.content_removal import ContentRemoval
from runglass.store.leases import Leases
from runglass.store.overview import Overview, PoolUse
from runglass.store.recordings import RecordedTraces
from runglass.store.records import RunRecord
from runglass.store.removal import Removal
from runglass.store.run_lists import RunLists
from runglass.store.run_logs import RunLog


@contextmanager
def decoding(run_id: str) -> Iterator[None]:
    """Inside the block, stored data of a run is decoded: RunUnreadable where it cannot be."""
    try:
        yield
    except DAMAGE as error:
        raise RunUnreadable(run_id, str(error) or type(error).__name__) from error


def summary_of(run: RunRecord) -> RunSummary:
    """What the row of the run says of it. Raises RunUnreadable."""
    with decoding(run.id):
        return msgspec.json.decode(run.summary, type=RunSummary)


class Store(
    Catalog,
    RunLog,
    Leases,
    RunLists,
    RecordedTraces,
    Overview,
    Removal,
    ContentRemoval,
):
    """Runs, flows, keys and projects. Every method raises StoreError if the store cannot be reached."""

    @abstractmethod
    async def __aenter__(self) -> Self: ...
    @abstractmethod
    async def __aexit__(self, *exc: object) -> None: ...

    @property
    def pool(self) -> PoolUse | None:
        """The connections of this process; None where a store has none that could run out."""
        return None
