"""What an attack is, and the families in which they are kept."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar

from tests.prove.attacking.field import Field
from tests.prove.attacking.seed import StoreKind
from tests.prove.attacking.verdict import FLOOR_MS

Payload = TypeVar("Payload")
Role: TypeAlias = Literal["nobody", "record", "read", "run", "admin"]
"""Whose key the attacker has; of a project of its own, never of the neighbour's."""

Strike: TypeAlias = Callable[[Field], Awaitable[object]]
Call: TypeAlias = Callable[[Field, int], Awaitable[object]]

Steps: TypeAlias = list[dict[str, Any]]
COPY: Steps = [{"id": "copy", "type": "passthrough"}]
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def loop(count: int, steps: Steps = COPY, *, name: str = "each", beside: int = 1) -> Steps:
    over = f"list(range({count}))"
    return [{"id": name, "type": "loop", "over": over, "max_concurrency": beside, "steps": steps}]


def code(text: str) -> Steps:
    return [{"id": "work", "type": "code", "code": text}]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """`strike` goes on until it has done what it wants, or its time is over, when it is cancelled.

    What it finds to be wrong beside the neighbour's fate it tells by `Field.complain`. `judge`, asked when
    all is over, may do so too.
    """

    name: str
    family: str
    role: Role
    strike: Strike
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
    refused_share: float = 0.0
    """How many of the neighbour's calls may be answered with UNAVAILABLE, which clients try again."""
    only_on: StoreKind | None = None
    has_second: bool = False
    """Whether a second server is on the same store."""
    judge: Strike | None = None
    prepare: Strike | None = None
    """What is done before the neighbour's quiet time."""


class Family:
    """Attacks of one kind, in the order of their file; `how` they are is as `Attack` has it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.attacks: list[Attack] = []

    def add(self, name: str, strike: Strike, *, role: Role, **how: Any) -> None:
        self.attacks.append(Attack(name=name, family=self.name, role=role, strike=strike, **how))

    def attack(self, role: Role, **how: Any) -> Callable[[Strike], Strike]:
        """Makes a function an attack, which is named after it."""

        def add(strike: Strike) -> Strike:
            self.add(strike.__name__.replace("_", "-"), strike, role=role, **how)
            return strike

        return add

    def each(
        self,
        role: Role,
        strike: Callable[[Field, Payload], Awaitable[object]],
        payloads: Mapping[str, Payload],
        **how: Any,
    ) -> None:
        """Adds an attack for each payload, by which alone they differ."""
        for name, payload in payloads.items():
            self.add(name, lambda field, payload=payload: strike(field, payload), role=role, **how)  # type: ignore[misc]

    def floods(self, role: Role, beside: int, per_s: float, calls: Mapping[str, Call], **how: Any) -> None:
        """Adds an attack for each call, which is made `per_s` times a second in `beside` lanes."""

        async def flood(field: Field, call: Call) -> None:
            await field.flood(partial(call, field), beside=beside, per_s=per_s)

        self.each(role, flood, calls, **how)


async def until_over(field: Field) -> None:
    await asyncio.sleep(max(0.0, field.left_s))
