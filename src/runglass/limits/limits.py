"""Everything that bounds callers in one process, by its settings: engine and server share one `Limits`."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from runglass.config.settings import Settings
from runglass.errors import rate_limited
from runglass.limits.memory import MemoryBudget
from runglass.limits.rate import Rates
from runglass.limits.shares import FairTurns, Shares
from runglass.limits.slots import RunSlots
from runglass.limits.turns import ProjectTurns

LARGE_REQUESTS = 8
"""The most projects of which a large request is taken in at the same time."""
DIFFS = 4
"""The most projects that compare runs at the same time: two traces are in memory for each."""


def most(setting: int | None) -> float:
    """The number that a setting allows; None is no limit."""
    return math.inf if setting is None else setting


class Limits:
    """Requests by rate, calls and runs by their number, memory by its bytes, large work by turns of projects.

    `weights` are those of projects, by id.
    """

    def __init__(self, settings: Settings, *, weights: Mapping[int, float] | None = None) -> None:
        self.settings = settings
        self.rates = Rates(
            per_key=settings.rate_limit_per_minute, per_project=settings.project_rate_limit_per_minute
        )
        self.memory = MemoryBudget(
            limit_bytes=settings.memory_limit_bytes, run_bytes=settings.run_memory_bytes
        )
        self.runs = RunSlots(settings, weights=weights)
        self.store_turns = ProjectTurns()
        self.model_calls = FairTurns(
            Shares(math.inf, most_each=most(settings.max_concurrent_model_calls_per_project))
        )
        self.large_requests = FairTurns(Shares(1, most=LARGE_REQUESTS, most_each=1))
        self.diffs = FairTurns(Shares(1, most=DIFFS, most_each=1))
        self._open_calls = Shares(math.inf, most_each=settings.max_streams_per_project)

    @contextmanager
    def open_call(self, project_id: int) -> Iterator[Callable[[], None]]:
        """Counts a stream, or a call that waits for its run, until the block ends, or calls what it is given.

        Raises RATE_LIMITED.
        """
        if not self._open_calls.may_take(project_id):
            value = self.settings.max_streams_per_project
            raise rate_limited(
                f"{value:,} streams and blocking calls of this project are open, as many as the setting"
                " `max_streams_per_project` allows; nothing was started, close some or try again later",
                details={"limit": "max_streams_per_project", "value": value},
            )
        with ExitStack() as counted:
            self._open_calls.take(project_id)
            counted.callback(self._open_calls.give_back, project_id)
            yield counted.close
