"""`prove hostile`: a hundred attacks on a server that has one well-behaved neighbour, who must hardly notice.

Each meets a real server with 1,024 files and two cores. Before it the neighbour is measured in quiet; during
it nothing may take it more than three times as long, nothing may fail, `/health` answers, and memory stays
within a bound; after it the server gives memory back, ends on SIGTERM, starts again and has lost nothing.

An attack that was only slow, on a machine that may do other work too, is tried once more: bad is what is so
twice. Bounds: `attacking/verdict.py`.
"""

import tempfile
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import msgspec
from rich.console import Console

from tests.prove.attacking.attack import Attack
from tests.prove.attacking.bout import Bout
from tests.prove.attacking.neighbour import EVERY_S
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
TOLD = 120
"""Characters of a verdict in the table; the JSON file has all of it."""


class Report(msgspec.Struct, frozen=True):
    """What `--json` writes and `--before` reads."""

    seconds: float
    bad: list[str]
    verdicts: list[Verdict]


async def hostile(
    seconds: float = SECONDS,
    only: Sequence[str] = (),
    family: Sequence[str] = (),
    json: Path | None = None,
    before: Path | None = None,
) -> list[str]:
    """Prints a table and gives its bounds. Raises AssertionError where a verdict is bad."""
    attacks = _chosen(only, family)
    table = Table(attacks, earlier=None if before is None else _read(before))
    table.head()
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="runglass-hostile-", ignore_cleanup_errors=True) as folder:
        async with Bout.begun(Path(folder), seconds=seconds) as bout:
            for attack, after in zip_longest(attacks, attacks[1:]):
                thorough = after is None or after.family != attack.family
                verdict = await bout.fight(attack, thorough=thorough)
                if verdict.slow and not verdict.faults:
                    verdict = await bout.fight(attack, thorough=thorough)
                table.row(verdict)
                verdicts.append(verdict)
                if json is not None:
                    # After each: a long proof may be cut short, and what it has found must not be lost.
                    _write(json, seconds, verdicts)
    bad = [verdict.name for verdict in verdicts if not verdict.is_good]
    assert not bad, f"{len(bad)} of {len(attacks)} attacks did what they must not: {', '.join(bad)}"
    return [
        *_bounds(seconds),
        *_beyond(verdicts),
        f"{len(attacks)} attacks, and the neighbour hardly noticed",
    ]


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


class Table:
    """Writes a row as soon as an attack is over: all of them take many minutes."""

    def __init__(self, attacks: Sequence[Attack], *, earlier: dict[str, Verdict] | None) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._earlier = earlier
        self._name_width = max(len(attack.name) for attack in attacks) + len(" [0]")

    def head(self) -> None:
        self._write("attack", "family", "p50 / p99", "MB", "health ms", "before: p50 / p99, MB", "verdict")

    def row(self, verdict: Verdict) -> None:
        """What was before, where that is known, and what is now."""
        earlier = (self._earlier or {}).get(verdict.name)
        told = verdict.told[:TOLD]
        if earlier is not None:
            told = f"{told} (before: {earlier.told[:TOLD]})"
        self._write(
            verdict.name if verdict.finding is None else f"{verdict.name} [{verdict.finding}]",
            verdict.family,
            verdict.ratios,
            f"{verdict.rss_peak_mb:,.0f}",
            f"{verdict.health_ms:,.0f}",
            "–" if earlier is None else f"{earlier.ratios}, {earlier.rss_peak_mb:,.0f}",
            told,
        )

    def _write(
        self, name: str, family: str, speed: str, size: str, health: str, before: str, told: str
    ) -> None:
        line = f"{name:{self._name_width}} {family:10} {speed:>14} {size:>6} {health:>9}"
        if self._earlier is not None:
            line += f" {before:>22}"
        self._console.print(f"{line}  {told}", markup=False)


def _bounds(seconds: float) -> list[str]:
    return [
        "p50 / p99: how many times as long as in quiet: runs, and the kind of call that suffered most",
        f"bounds: p99 of each kind of call {TIMES:g} times its quiet value, or {FLOOR_MS:g} ms above it;"
        f" /health in {HEALTH_MS / 1000:g} s; end within {STOP_S:g} s of SIGTERM; each attack {seconds:g} s",
        f"memory of all processes: {RSS_MB:,.0f} MB over quiet, {RSS_MB * BACK_SHARE:,.0f} MB after"
        f" {SETTLE_S:g} s; killed at {CEILING_MB:,.0f} MB",
    ]


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
    encoded = msgspec.json.encode(Report(seconds, bad, verdicts))
    path.write_bytes(msgspec.json.format(encoded, indent=1) + b"\n")


def _read(path: Path) -> dict[str, Verdict]:
    report = msgspec.json.decode(path.read_bytes(), type=Report)
    return {verdict.name: verdict for verdict in report.verdicts}
