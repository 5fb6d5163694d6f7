"""Limits that hold over all processes of a world: what models may cost, and how many runs go on at once.

How many runs is limited for each project and for flows. What runs hold in memory is limited in each process.
"""

from collections.abc import Mapping
from decimal import Decimal
from random import Random
from typing import NamedTuple

PROJECTS = ("demo", "other")
SLUGS = ("simulated", "second")
BUDGET_USD = Decimal("0.000002")
"""One answer of a model: whoever comes next is refused."""
AMPLE_BYTES = 1 << 30


class Limits(NamedTuple):
    """At most so many runs of each project, and of each flow by `org/project/slug`; a budget of each project.

    Where it `is_crowded`, many runs begin at the same time and most of their steps ask a model. The runs of a
    process may hold `memory_bytes` in memory.
    """

    of_project: int | None = None
    of_flows: Mapping[str, int] = {}  # a NamedTuple's default, never changed
    budget_usd: Decimal | None = None
    is_crowded: bool = False
    memory_bytes: int = AMPLE_BYTES

    @property
    def are_of_runs(self) -> bool:
        return self.of_project is not None or bool(self.of_flows)

    @property
    def are_of_memory(self) -> bool:
        """Whether what steps return is large, and memory holds some of it."""
        return self.memory_bytes < AMPLE_BYTES

    @property
    def most_started(self) -> int:
        """At most so often a run is started, or some together: more than may go on at once."""
        return 8 if self.are_of_runs else 5


def make_limits(seed: int) -> Limits:
    """The limits of a world, which may have none."""
    chance, of_memory = Random(f"limits of {seed}"), Random(f"memory of {seed}")
    memory_bytes = of_memory.choice((40_000, 80_000, 200_000)) if of_memory.random() < 0.1 else AMPLE_BYTES
    budget_usd = BUDGET_USD if chance.random() < 0.3 else None
    is_crowded = budget_usd is not None and chance.random() < 0.8
    if chance.random() < 0.75:
        return Limits(budget_usd=budget_usd, is_crowded=is_crowded, memory_bytes=memory_bytes)
    of_project = chance.choice((None, 1, 2, 3))
    is_of_flow = of_project is None or chance.random() < 0.5
    of_flows = {f"acme/{PROJECTS[0]}/{SLUGS[0]}": chance.choice((1, 1, 2))} if is_of_flow else {}
    return Limits(of_project, of_flows, budget_usd, is_crowded, memory_bytes)
