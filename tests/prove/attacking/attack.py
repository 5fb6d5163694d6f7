"""What an attack is, and the families in which they are kept."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from tests.prove.attacking.field import Field

Role: TypeAlias = Literal["nobody", "read", "run", "admin"]
"""Whose key the attacker has; of a project of its own, never of the neighbour's."""

Strike: TypeAlias = Callable[[Field], Awaitable[None]]


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
    judge: Strike | None = None
    prepare: Strike | None = None
    """What is done before the neighbour's quiet time."""


class Family:
    """Attacks of one kind, in the order of their file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.attacks: list[Attack] = []

    def attack(
        self,
        role: Role,
        *,
        finding: int | None = None,
        settings: Mapping[str, str] | None = None,
        leaves_work: bool = False,
        hurts_by_itself: bool = False,
        judge: Strike | None = None,
        prepare: Strike | None = None,
    ) -> Callable[[Strike], Strike]:
        """Makes a function an attack, which is named after it and told by its docstring."""

        def add(strike: Strike) -> Strike:
            self.add(
                strike.__name__.replace("_", "-"),
                (strike.__doc__ or "").split("\n")[0],
                strike,
                role=role,
                finding=finding,
                settings=settings,
                leaves_work=leaves_work,
                hurts_by_itself=hurts_by_itself,
                judge=judge,
                prepare=prepare,
            )
            return strike

        return add

    def add(
        self,
        name: str,
        about: str,
        strike: Strike,
        *,
        role: Role,
        finding: int | None = None,
        settings: Mapping[str, str] | None = None,
        leaves_work: bool = False,
        hurts_by_itself: bool = False,
        judge: Strike | None = None,
        prepare: Strike | None = None,
        limit_s: float = 0.0,
    ) -> None:
        """The same for one that a table describes."""
        self.attacks.append(
            Attack(
                name=name,
                family=self.name,
                about=about,
                role=role,
                strike=strike,
                finding=finding,
                settings=settings or {},
                leaves_work=leaves_work,
                hurts_by_itself=hurts_by_itself,
                judge=judge,
                prepare=prepare,
                limit_s=limit_s,
            )
        )


async def until_over(field: Field) -> None:
    """Returns when the attack's time is over."""
    await asyncio.sleep(max(0.0, field.ends_s - asyncio.get_running_loop().time()))
