"""One line of the table: what a figure came to, beside the peers and the limit, and whether that is enough.

Absolute times belong to a machine; ratios of sides that were measured in turns belong to the code, so they
are judged first. How a side is measured is not known here.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Literal

import msgspec

Better = Literal["less", "more"]
Verdict = Literal["yes", "ratio only", "absolute only", "no", ""]


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """What a figure is to reach; each part that is given and can be judged counts.

    `at` is in the figure's unit. `of_limit` is how many times the limit's cost ours may have, `over_peer` how
    many times better than the best peer ours must be.
    """

    at: float | None = None
    of_limit: float | None = None
    over_peer: float | None = None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure. Each side is all of its samples, in the order in which they were taken.

    Peers that are not installed have none. `note` is what a reader must know beside the numbers.
    """

    figure: str
    unit: str
    better: Better = "less"
    ours: Sequence[float]
    peers: Mapping[str, Sequence[float]] = {}
    limit: Sequence[float] = ()
    goal: Goal = Goal()
    note: str = ""

    @property
    def our_value(self) -> float:
        """The median of ours."""
        return median(self.ours)

    @property
    def limit_value(self) -> float | None:
        """The median of the limit, where there is one."""
        return median(self.limit) if self.limit else None

    @property
    def best_peer(self) -> tuple[str, float] | None:
        """The peer that does best, with its median."""
        medians = [(name, median(samples)) for name, samples in self.peers.items() if samples]
        if not medians:
            return None
        return (min if self.better == "less" else max)(medians, key=lambda peer: peer[1])

    @property
    def missing(self) -> list[str]:
        """The peers that are not installed."""
        return [name for name, samples in self.peers.items() if not samples]

    @property
    def of_limit(self) -> float | None:
        """How many times the limit's cost ours has; from 1 on, unless ours does better than the limit."""
        return None if self.limit_value is None else self._cost(self.our_value, self.limit_value)

    @property
    def over_peer(self) -> float | None:
        """How many times better than the best peer ours is."""
        return None if self.best_peer is None else self._cost(self.best_peer[1], self.our_value)

    @property
    def verdict(self) -> Verdict:
        """Whether the goal is met; empty where there is none."""
        at = self.goal.at
        absolute = (
            None if at is None else (self.our_value <= at if self.better == "less" else self.our_value >= at)
        )
        ratios = []
        if self.goal.of_limit is not None and self.of_limit is not None:
            ratios.append(self.of_limit <= self.goal.of_limit)
        if self.goal.over_peer is not None and self.over_peer is not None:
            ratios.append(self.over_peer >= self.goal.over_peer)
        relative = all(ratios) if ratios else None
        if absolute is None and relative is None:
            return ""
        if absolute in (True, None) and relative in (True, None):
            return "yes"
        if relative:
            return "ratio only"
        return "absolute only" if absolute else "no"

    def _cost(self, one: float, other: float) -> float | None:
        if self.better == "more":
            one, other = other, one
        return one / other if other else None


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """A figure that could not be measured, and why."""

    figure: str
    reason: str
