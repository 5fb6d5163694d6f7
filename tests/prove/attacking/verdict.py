"""What an attack has done, against what it may do."""

from collections.abc import Sequence

import msgspec

from tests.prove.attacking.neighbour import EVERY_S, Sample
from tests.prove.attacking.seed import StoreKind
from tests.prove.attacking.server import GRACE_S

TIMES = 3.0
"""So many times its quiet p99 the neighbour's p99 may be, for each kind of thing that it does."""
FLOOR_MS = 150.0
"""Or so much above it: the attacker and the machine's other work take processor time of their own."""
HEALTH_MS = 2000.0
RSS_MB = 1536.0
"""Memory of the server and its children above its quiet value, at most; half of it a few seconds later."""
BACK_SHARE = 0.5
CEILING_MB = 3000.0
"""A server that takes more is killed, lest it takes the machine along."""
SETTLE_S = 8.0
STOP_S = GRACE_S + 4.0
"""From SIGTERM to the end: the grace of steps, a second for answers, and room for a busy machine."""


class Speed(msgspec.Struct, frozen=True):
    """Milliseconds that one kind of thing took, quiet and under attack."""

    quiet_p50: float
    quiet_p99: float
    p50: float
    p99: float

    def is_bad(self, floor_ms: float = FLOOR_MS) -> bool:
        """Whether the p99 is beyond both bounds."""
        return self.p99 > max(TIMES * self.quiet_p99, self.quiet_p99 + floor_ms)

    @property
    def ratio(self) -> float:
        """Of p99 to the quiet one, which is taken as no less than a millisecond."""
        return self.p99 / max(self.quiet_p99, 1.0)


class Verdict(msgspec.Struct, kw_only=True):
    """One attack's row. It is good where `faults` and `slow`, what a busy machine may cause, are empty."""

    name: str
    family: str
    store: StoreKind = "sqlite"
    speeds: dict[str, Speed] = {}
    health_ms: float = 0.0
    rss_quiet_mb: float = 0.0
    rss_peak_mb: float = 0.0
    rss_after_mb: float = 0.0
    stop_s: float | None = None
    restart_s: float | None = None
    answers: dict[str, int] = {}
    slow: list[str] = []
    faults: list[str] = []

    @property
    def is_good(self) -> bool:
        return not self.faults and not self.slow

    @property
    def run_ms(self) -> str:
        """Milliseconds of the neighbour's runs, p50 and p99, in quiet and now."""
        run = self.speeds.get("run")
        if run is None:
            return "–"
        return f"{run.quiet_p50:,.0f}/{run.quiet_p99:,.0f} to {run.p50:,.0f}/{run.p99:,.0f}"

    @property
    def told(self) -> str:
        return "good" if self.is_good else "; ".join([*self.faults, *self.slow])


def speeds_of(quiet: Sequence[Sample], attacked: Sequence[Sample]) -> dict[str, Speed]:
    """How fast the neighbour was, per kind. What failed counts with the time that it took to fail."""
    speeds: dict[str, Speed] = {}
    for kind in EVERY_S:
        times = [sorted(each.ms for each in samples if each.kind == kind) for samples in (quiet, attacked)]
        if all(times):
            speeds[kind] = Speed(*(_percentile(each, share) for each in times for share in (0.5, 0.99)))
    return speeds


def _percentile(ordered: Sequence[float], share: float) -> float:
    """Of few values the 99th percentile is the largest one."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def is_settled(samples: Sequence[Sample], quiet: Sequence[Sample]) -> bool:
    """Whether the neighbour's things take no longer than they may under attack, and none fails."""
    if any(each.fault for each in samples):
        return False
    return not any(speed.is_bad() for speed in speeds_of(quiet, samples).values())


def judge_memory(verdict: Verdict, *, alive: bool, over_ceiling: bool) -> None:
    """Notes what is wrong with the server's memory, or that it is no more."""
    over_mb = verdict.rss_peak_mb - verdict.rss_quiet_mb
    if over_ceiling:
        verdict.faults.append(f"memory over {CEILING_MB:,.0f} MB, killed by the harness")
    elif not alive:
        verdict.faults.append("the server died")
    elif over_mb > RSS_MB:
        verdict.faults.append(f"memory {over_mb:,.0f} MB over quiet")


def judge_neighbour(
    verdict: Verdict, attacked: Sequence[Sample], *, floor_ms: float = FLOOR_MS, refused_share: float = 0.0
) -> None:
    if verdict.health_ms > HEALTH_MS:
        verdict.slow.append(f"/health took {verdict.health_ms / 1000:.1f} s")
    failed = [each for each in attacked if each.fault is not None]
    if all("UNAVAILABLE" in str(each.fault) for each in failed):
        failed = failed[int(refused_share * len(attacked)) :]
    if failed:
        # A wait that was given up is slow, and tried again like all that is slow; any other failure is one.
        waited = all(each.gave_up for each in failed)
        often = f"{len(failed)} times of {len(attacked)}"
        told = f"the neighbour failed {often}: {failed[0].kind}: {failed[0].fault}"
        (verdict.slow if waited else verdict.faults).append(told)
    verdict.slow += [
        f"{kind} p99 {speed.quiet_p99:.0f} to {speed.p99:.0f} ms"
        for kind, speed in verdict.speeds.items()
        if speed.is_bad(floor_ms)
    ]
