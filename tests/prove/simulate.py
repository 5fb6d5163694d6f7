"""`prove simulate`: the engine on a virtual clock, in a world where a seed decides on all that happens.

It decides on flows, durations and failures, on when callers start, resume, cancel and follow runs, and at
which process, when processes crash (at any moment and around any commit), stop, and sleep until another
machine has their runs, when the disk is full or gone, when clocks are set back, and which wake-ups are lost,
late or repeated. One to three engines work on one store, where some may only take calls. After each commit
the laws of the log are checked, and those of budgets and limits over all engines (`simulating/laws.py`):
nothing is spent or held beyond a budget, no more runs go on at once than may, and none waits for ever. In
some worlds outputs are large and memory is small: what was let go of is read back, and nothing is held at the
end. To replay a seed that lies: `python -m tests.prove simulate --first SEED --seeds 1`.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Iterable
from typing import get_args

from tests.prove.simulating.disk import Fault
from tests.prove.simulating.seed import Lived, live

KINDS = ("runs", "callers", "trouble", "wake-ups", "readers", "engines", "memory")
CONTROL_FROM = 1000
"""With so many seeds, those of a store with a fault must show it; the rarest shows in one of 150."""


def simulate(
    seeds: int = 2000, first: int = 0, engines: int | None = None, *, fault: Fault | None = None
) -> list[str]:
    """What was tried with the seeds from `first` on. Raises AssertionError for the first seed with a lie.

    Each seed has its own number of engines, unless `engines` says how many they are. With a `fault` of the
    store there should be a lie.
    """
    began_s = time.monotonic()
    seen: Counter[str] = Counter()
    digest = hashlib.sha256()
    for seed in range(first, first + seeds):
        lived = _lived(seed, engines, fault)
        seen += lived.seen
        digest.update(lived.digest.encode())
    per_s = seeds / (time.monotonic() - began_s)
    report = [
        f"simulate, seeds {first} to {first + seeds - 1}: {per_s:.0f} seeds/s, {seen['virtual seconds']:,}"
        f" virtual seconds, {seen['commits']:,} commits, {seen['events']:,} events; no lie",
        *(_told(kind, seen) for kind in KINDS),
        f"all logs together: {digest.hexdigest()[:12]}",
    ]
    if seeds >= CONTROL_FROM:
        report += [_control(fault, range(first, first + seeds)) for fault in get_args(Fault)]
    return report


def _lived(seed: int, engines: int | None, fault: Fault | None) -> Lived:
    try:
        return live(seed, engines=engines, fault=fault)
    except AssertionError as lie:
        replay = f"python -m tests.prove simulate --first {seed} --seeds 1"
        replay += "" if engines is None else f" --engines {engines}"
        raise AssertionError(f"seed {seed}: {lie}; replay it with `{replay}`") from lie


def _told(kind: str, seen: Counter[str]) -> str:
    counted = sorted(
        (name.partition(": ")[2], count) for name, count in seen.items() if name.startswith(kind)
    )
    return f"{kind}: " + ", ".join(f"{count:,} {name}" for name, count in counted)


def _control(fault: Fault, seeds: Iterable[int]) -> str:
    for seed in seeds:
        try:
            live(seed, fault=fault)
        except AssertionError as lie:
            return f"control, {fault}: seed {seed}: {lie}"
    raise AssertionError(f"no seed shows {fault}")
