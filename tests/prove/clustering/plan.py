"""What breaks in a cluster, when, and for how long: all of it from a seed, before anything is started.

Nothing here knows how a fault is made.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

LEASE_S = 3.0
"""The lease of the processes under trial: takeovers come in seconds, and most faults outlast some leases."""

Kind = Literal[
    "kill", "stop", "freeze", "freeze until takeover", "cut up", "cut down", "cut both", "reset", "clock"
]
"""`freeze` is SIGSTOP and SIGCONT later; a cut holds what a process sends to its database (`up`), what it is
sent (`down`), or both; `reset` ends its connections."""
OfService = Literal["kill", "freeze", "restart"]
"""What happens to a service that all processes use."""

SERVICE_SHARE = 0.08
"""Faults that hit a service and so everybody."""
GAP_S = 1.0
"""From the beginning of one fault to the next, in the mean."""
CLOCKS_S = (-3600.0, -60.0, -5.0, -0.5, 0.5, 5.0, 60.0, 3600.0)


class Fault(NamedTuple):
    """`gap_s` after the one before; `far_s` is by how much a clock is wrong from now on."""

    gap_s: float
    target: str
    kind: Kind | OfService
    lasts_s: float = 0.0
    far_s: float = 0.0

    def __str__(self) -> str:
        if self.kind == "clock":
            return f"clock of {self.target} {self.far_s:+g} s"
        return f"{self.kind} {self.target}" + (f" for {self.lasts_s:.1f} s" if self.lasts_s else "")


def plan(
    seed: int, faults: int, *, members: Sequence[str], services: Sequence[str], lease_s: float = LEASE_S
) -> list[Fault]:
    """So many faults in their order; the same for the same arguments."""
    return list(_faults(random.Random(f"cluster {seed}"), faults, members, services, lease_s))


def _faults(
    chance: random.Random, faults: int, members: Sequence[str], services: Sequence[str], lease_s: float
) -> Iterator[Fault]:
    now_s = 0.0
    busy_until: dict[str, float] = {}
    for _ in range(faults):
        gap_s = min(chance.expovariate(1 / GAP_S), 4 * GAP_S)
        now_s += gap_s
        # One whose last fault still lasts has enough of it: what is free comes first.
        free = [each for each in members if busy_until.get(each, 0.0) <= now_s] or list(members)
        if services and chance.random() < SERVICE_SHARE:
            target = chance.choice(services)
            kind: Kind | OfService = chance.choice(get_args(OfService))
            lasts_s = chance.uniform(0.1, lease_s)
        else:
            target, kind = chance.choice(free), chance.choice(get_args(Kind))
            lasts_s = _lasts_s(chance, kind, lease_s)
        busy_until[target] = now_s + lasts_s
        far_s = chance.choice(CLOCKS_S) if kind == "clock" else 0.0
        yield Fault(gap_s, target, kind, lasts_s, far_s)


def _lasts_s(chance: random.Random, kind: str, lease_s: float) -> float:
    match kind:
        case "clock" | "reset":
            return 0.0
        case "kill" | "stop":
            # How long nobody starts it again.
            return chance.choice((0.1, chance.uniform(0.1, 2 * lease_s)))
        case "freeze until takeover":
            return 3 * lease_s
    return chance.choice((chance.uniform(0.1, lease_s), chance.uniform(lease_s, 2.5 * lease_s)))
