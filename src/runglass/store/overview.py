"""What a store holds as a whole, for those who watch it."""

from datetime import datetime
from typing import NamedTuple

from runglass.wire.query import created_ms

OPEN_STATUSES = ("pending", "running", "paused")


class StoreOverview(NamedTuple):
    """What has not ended; `open_runs` by the names of projects and by status."""

    open_runs: dict[tuple[str, str], int]
    waiting: int
    """Runs that no process has."""
    oldest_waiting_s: float
    """Age of the oldest of them, 0 where none waits."""
    leases: int


class PoolUse(NamedTuple):
    """Connections of a store in this process: in use, open, and the most that there may be."""

    busy: int
    open: int
    most: int


def age_s(run_id: str | None, *, now: datetime) -> float:
    """How long before `now` the run with that id was created; 0 for one whose id does not say."""
    try:
        return 0.0 if run_id is None else max(0.0, now.timestamp() - created_ms(run_id) / 1000)
    except ValueError:
        return 0.0
