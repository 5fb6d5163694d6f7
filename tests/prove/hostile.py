"""`prove hostile`: a hundred attacks on a server that has one well-behaved neighbour, who must hardly notice.

Each meets a real server with 1,024 files and two cores, on SQLite, on PostgreSQL or on both. Before it the
neighbour is measured in quiet; during it nothing may take it more than three times as long, nothing may fail,
`/health` answers, and memory stays within a bound; after it the server gives memory back, ends on SIGTERM,
starts again and has lost nothing.

An attack that was only slow, on a machine that may do other work too, is tried once more: bad is what is so
twice. Bounds: `attacking/verdict.py`.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import get_args

import msgspec
from rich.console import Console

from tests.postgres_server import stop_postgres
from tests.prove.attacking.attack import Attack
from tests.prove.attacking.bout import Bout
from tests.prove.attacking.neighbour import EVERY_S
from tests.prove.attacking.seed import StoreKind
from tests.prove.attacking.verdict import (
    BACK_SHARE,
    CEILING_MB,
    FLOOR_MS,
    HEALTH_MS,
    RSS_MB,
    SETTLE_S,
    STOP_S,
    TIMES,
    Verdict,
)
from tests.prove.attacks import FAMILIES

SECONDS = 2.5
ON_BOTH = frozenset({"provider", "import", "browser"})
"""Families that meet both stores unless one is asked for; the others meet SQLite."""
NAME_WIDTH, WIDTHS = 36, (26, 6, 9)
TOLD = 120
"""Characters of a verdict in the table; the JSON file has all of it."""
console = Console(highlight=False, soft_wrap=True)


async def hostile(
    seconds: float = SECONDS,
    only: Sequence[str] = (),
    family: Sequence[str] = (),
    store: StoreKind | None = None,
    json: Path | None = None,
) -> list[str]:
    """Prints a table and gives its bounds. Raises AssertionError where a verdict is bad."""
    attacks = _chosen(only, family)
    _write_row("attack", "store", ["run p50/p99, quiet to now", "MB", "health ms"], "verdict")
    verdicts: list[Verdict] = []
    try:
        for kind in get_args(StoreKind):
            if not (met := [attack for attack in attacks if _meets(attack, kind, store)]):
                continue
            with tempfile.TemporaryDirectory(
                prefix="runglass-hostile-", ignore_cleanup_errors=True
            ) as folder:
                async with Bout.begun(Path(folder), kind, seconds=seconds) as bout:
                    for attack, after in zip_longest(met, met[1:]):
                        thorough = after is None or after.family != attack.family
                        verdict = await bout.fight(attack, thorough=thorough)
                        if verdict.slow and not verdict.faults:
                            verdict = await bout.fight(attack, thorough=thorough)
                        _row(verdict)
                        verdicts.append(verdict)
                        if json is not None:
                            # After each: a proof may be cut short, and what it has found must not be lost.
                            _write(json, seconds, verdicts)
    finally:
        await asyncio.to_thread(stop_postgres)
    bad = [f"{verdict.name} on {verdict.store}" for verdict in verdicts if not verdict.is_good]
    assert not bad, f"{len(bad)} of {len(verdicts)} attacks did what they must not: {', '.join(bad)}"
    return [
        "run ms: p50 and p99 of the neighbour's runs, in quiet and during the attack",
        f"bounds: p99 of each kind of call {TIMES:g} times its quiet value, or {FLOOR_MS:g} ms above it;"
        f" /health in {HEALTH_MS / 1000:g} s; end within {STOP_S:g} s of SIGTERM; each attack {seconds:g} s",
        f"memory of all processes: {RSS_MB:,.0f} MB over quiet, {RSS_MB * BACK_SHARE:,.0f} MB after"
        f" {SETTLE_S:g} s; killed at {CEILING_MB:,.0f} MB",
        *_beyond(verdicts),
        f"{len(verdicts)} attacks, and the neighbour hardly noticed",
    ]


def _meets(attack: Attack, kind: StoreKind, wanted: StoreKind | None) -> bool:
    if wanted is None:
        wanted = kind if attack.family in ON_BOTH else "sqlite"
    return kind == wanted and attack.only_on in (None, kind)


def _chosen(only: Sequence[str], families: Sequence[str]) -> list[Attack]:
    every = [attack for family in FAMILIES for attack in family.attacks]
    known = {attack.name for attack in every} | {family.name for family in FAMILIES}
    unknown = {*only, *families} - known
    assert not unknown, (
        f"there is no attack or family {', '.join(sorted(unknown))}; there are: {sorted(known)}"
    )
    if not only and not families:
        return every
    return [attack for attack in every if attack.name in only or attack.family in families]


def _row(verdict: Verdict) -> None:
    """Tells of an attack as soon as it is over: all of them take many minutes."""
    numbers = (verdict.rss_peak_mb, verdict.health_ms)
    figures = [verdict.run_ms, *(f"{number:,.0f}" for number in numbers)]
    _write_row(verdict.name, verdict.store, figures, verdict.told[:TOLD])


def _write_row(name: str, store: str, figures: Sequence[str], told: str) -> None:
    line = " ".join(f"{each:>{width}}" for each, width in zip(figures, WIDTHS, strict=True))
    console.print(f"{name:{NAME_WIDTH}} {store:8} {line}  {told}", markup=False)


def _beyond(verdicts: Sequence[Verdict]) -> list[str]:
    """How often the neighbour's p99 was more than so many times its quiet value, be it within the bound."""
    lines = []
    for kind in EVERY_S:
        speeds = [(each.speeds[kind], each.name) for each in verdicts if kind in each.speeds]
        over = [(speed, name) for speed, name in speeds if speed.ratio > TIMES]
        if over:
            worst, name = max(over, key=lambda each: each[0].p99)
            lines.append(
                f"{kind}: p99 over {TIMES:g} times its quiet value in {len(over)} of {len(speeds)} attacks,"
                f" at most {worst.quiet_p99:.0f} to {worst.p99:.0f} ms ({name})"
            )
    return lines


def _write(path: Path, seconds: float, verdicts: list[Verdict]) -> None:
    bad = [verdict.name for verdict in verdicts if not verdict.is_good]
    encoded = msgspec.json.encode({"seconds": seconds, "bad": bad, "verdicts": verdicts})
    path.write_bytes(msgspec.json.format(encoded, indent=1) + b"\n")
