"""What an attack is, and the families in which they are kept."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypedDict, Unpack

from tests.prove.attacking.field import Field
from tests.prove.attacking.seed import StoreKind
from tests.prove.attacking.verdict import FLOOR_MS

Role: TypeAlias = Literal["nobody", "record", "read", "run", "admin"]
"""Whose key the attacker has; of a project of its own, never of the neighbour's."""

Strike: TypeAlias = Callable[[Field], Awaitable[None]]


class How(TypedDict, total=False):
    """What few attacks need, each as `Attack` tells of it."""

    finding: int
    settings: Mapping[str, str]
    leaves_work: bool
    hurts_by_itself: bool
    limit_s: float
    floor_ms: float
    only_on: StoreKind
    has_second: bool
    judge: Strike
    prepare: Strike


@dataclass(frozen=True, kw_only=True)
class Attack:
    """`strike` goes on until it has done what it wants, or its time is over, when it is cancelled.

    What it finds to be wrong beside the neighbour's fate it tells by `Field.complain`. `judge`, asked when
    all is over, may do so too.
    """

    name: str
    family: str
    about: str
    role: Role
    strike: Strike
    finding: int | None = None
    """The number of the issue's finding that it repeats."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Variables of the server beside the defaults."""
    leaves_work: bool = False
    """Whether runs go on after it, so that the next attack needs data of its own."""
    hurts_by_itself: bool = False
    """Whether the harness slows the server down itself, so that the neighbour's time proves nothing."""
    limit_s: float = 0.0
    """How long it may take at least before it is cancelled."""
    floor_ms: float = FLOOR_MS
    """How much slower than in quiet the neighbour may be even if that is more than so many times."""
    only_on: StoreKind | None = None
    has_second: bool = False
    """Whether a second server is on the same store."""
    judge: Strike | None = None
    prepare: Strike | None = None
    """What is done before the neighbour's quiet time."""


class Family:
    """Attacks of one kind, in the order of their file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.attacks: list[Attack] = []

    def attack(self, role: Role, **how: Unpack[How]) -> Callable[[Strike], Strike]:
        """Makes a function an attack, which is named after it and told by its docstring."""

        def add(strike: Strike) -> Strike:
            about = (strike.__doc__ or "").split("\n")[0]
            self.add(strike.__name__.replace("_", "-"), about, strike, role=role, **how)
            return strike

        return add

    def add(self, name: str, about: str, strike: Strike, *, role: Role, **how: Unpack[How]) -> None:
        """The same for one that a table describes."""
        attack = Attack(name=name, family=self.name, about=about, role=role, strike=strike, **how)
        self.attacks.append(attack)


async def until_over(field: Field) -> None:
    """Returns when the attack's time is over."""
    await asyncio.sleep(max(0.0, field.ends_s - asyncio.get_running_loop().time()))
