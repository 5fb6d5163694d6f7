"""Everything that bounds callers in one process, by its settings: engine and server share one `Limits`."""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from runglass.config.settings import Settings
from runglass.errors import rate_limited
from runglass.limits.memory import MemoryBudget
from runglass.limits.rate import Rates
from runglass.limits.shares import FairTurns, Shares
from runglass.limits.slots import RunSlots
from runglass.limits.turns import ProjectTurns

LARGE_REQUESTS = 8
"""The most projects of which a large request is taken in at the same time."""
IMPORTS = 8
"""The most projects that import a run at the same time: some 40 MB are in memory for each."""
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
        self._imports = Shares(IMPORTS, most=IMPORTS, most_each=1)

    def open_call(self, project_id: int) -> AbstractContextManager[Callable[[], None]]:
        """The block is a stream, or a call that waits for its run; it ends by what it is given, too.

        Raises RATE_LIMITED.
        """
        if not self._open_calls.may_take(project_id):
            value = self.settings.max_streams_per_project
            raise rate_limited(
                f"{value:,} streams and blocking calls of this project are open, as many as the setting"
                " `max_streams_per_project` allows; nothing was started, close some or try again later",
                details={"limit": "max_streams_per_project", "value": value},
            )
        return self._open_calls.taken(project_id)

    def one_import(self, project_id: int) -> AbstractContextManager[object]:
        """The block imports a run. Raises RATE_LIMITED where the project does already, or many others do."""
        if not self._imports.may_take(project_id):
            raise rate_limited(
                "another run is being imported, and one of a project is taken at a time; try again later"
            )
        return self._imports.taken(project_id)
