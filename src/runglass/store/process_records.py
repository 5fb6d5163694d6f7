"""Rows of what processes share in a store: leases, the queue, and parts of budgets that are held."""

from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from runglass.log.money import add_usd
from runglass.store.records import Project


class ProcessFacts(NamedTuple):
    """A process that holds a lease, as people know it."""

    host: str = ""
    pid: int = 0
    version: str = ""
    executes_runs: bool = True


UNTOLD = ProcessFacts()


class HeldLease(NamedTuple):
    """A lease that has not been taken over: who holds it, since when, and until when; ISO times.

    `runs` is how many runs the process has.
    """

    owner: str
    process: ProcessFacts
    since: str
    expires_at: str
    runs: int


class BudgetDecision(NamedTuple):
    """What a budget had before a part of it was asked for: the project, if it is there, and what was held."""

    project: Project | None
    held_usd: Decimal

    def has_room_for(self, usd: Decimal) -> bool:
        """Whether the part that was asked for is held now."""
        project = self.project
        if project is None or project.budget_usd is None:
            return True
        taken = add_usd(add_usd(project.spent_usd, project.reserved_usd), self.held_usd)
        return add_usd(taken, usd) <= project.budget_usd


NO_LIMITS: Mapping[str, int] = {}
"""Of how many runs of a flow go on at once, by `org/project/slug`."""


class QueuedRuns(NamedTuple):
    """How many runs wait that no process has: all, the project's `own`, and in how many projects."""

    waiting: int
    own: int
    projects: int
