"""`prove cluster`: three servers and four workers on one PostgreSQL, under load, while everything breaks.

Processes are killed, stopped, frozen beyond their lease, cut off from the database one way or both, and given
wrong clocks; the database and the bus are killed, frozen and restarted. What breaks when follows from the
seed (`clustering/member.py`). After each round all is well again, every run must come to its end, and the
laws of `prove kill` must hold of it, whichever server is asked; no process may have written to a run that
another one had got, or dated an event by another clock than the database's, and waits that went on elsewhere
must have ended in time. At the end a store that ignores fences must be found out, and so must programs with a
fault: waits that begin anew or end at once in the next process, and events dated by the process's own clock.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from statistics import median

from runglass.log.events import decode_event
from runglass.store.postgres.integrity import check
from runglass.store.postgres.store import PostgresStore
from tests.laws.law import require
from tests.prove.child import PLANTS
from tests.prove.clustering.cluster import NAMES, Cluster, Shape, services
from tests.prove.clustering.database import hands_of, misdated, zombies
from tests.prove.clustering.member import LEASE_S, Fault, Kind, plan
from tests.prove.killing.laws import Laws
from tests.prove.killing.line import Book
from tests.prove.killing.load import Load, count_round
from tests.prove.report import lines

ROUND = 50
"""Faults after which all must be well again: bounds what is read at a time."""
CONTROL_EACH, CONTROL_ROUNDS = 8, 10
CONTROL_NAMES = ("server 1", "worker 1", "worker 2", "worker 3")
ANEW, AT_ONCE, OWN_CLOCK = PLANTS
CONTROLS: tuple[tuple[str, Kind, str], ...] = (
    ("", "freeze until takeover", "a zombie: "),
    (ANEW, "stop", "wait"),
    (AT_ONCE, "stop", "wait"),
    (OWN_CLOCK, "clock", "and dated it "),
)
"""A fault of the program, or of the store; what happens to processes while it is to be found; and words of
the lie as which it must be told, whatever else it breaks."""
PATIENCE_S = 5.0
EARLY_MS = 1000
"""How early a wait may end that one process has begun and another ends: each knows the time of the database
to within a second."""
LATE_MS = 5000 * LEASE_S
"""How late: whoever has it may be frozen for three leases, and needs a while to come to it then."""
MOSTLY_LATE_MS, MOSTLY_EARLY_MS, SOME = 1000, 100, 4
"""How late and how early half of those may end that went on elsewhere, where there are some: few processes
are frozen just then."""


class Broken:
    """What all rounds add up to, and how long what followed the faults took."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.end_s: list[float] = []
        self.steps_ms: list[tuple[float, float]] = []
        """Of wait steps that went on elsewhere: what they took there, and what was due."""


async def cluster(faults: int = 500, seed: int = 0, control: bool = True) -> list[str]:
    """Lets so many faults happen; the lines of a report. Raises AssertionError that names seed and faults."""
    began_s = time.monotonic()
    findings = Broken()
    planned = list(plan(seed, faults, members=NAMES, services=services(seed)))
    async with Cluster.running(seed) as running:
        laws = Laws(Book(), running.outside, late_ms=LATE_MS, early_ms=EARLY_MS)
        for first in range(0, faults, ROUND):
            part = planned[first : first + ROUND]
            place = f"seed {seed}, faults {first + 1} to {first + len(part)}"
            await _broken(running, part, place, laws, findings)
        ended = [said for member in running.members.values() for said in member.ended]
    report = [
        f"cluster, seed {seed}: {len(planned)} faults in {time.monotonic() - began_s:.0f} s; no lie",
        *lines(findings.seen),
        f"all was at its end {median(findings.end_s):.1f} s after the last fault of a round,"
        f" {max(findings.end_s):.1f} at most",
        f"{len(ended)} processes ended by themselves, and were started again",
        *ended[:5],
    ]
    if control:
        report += [await _control(seed, *each) for each in CONTROLS]
    return report


async def _broken(
    running: Cluster, faults: Sequence[Fault], place: str, laws: Laws, findings: Broken
) -> None:
    """Load and faults, until all has come to its end, and the laws."""
    book = laws.book = Book()
    laws.waits_ms.clear()
    running.outside.calls.clear()
    async with running.load(book, place) as load:
        await breaking(running, faults, load)
        calm_s = time.monotonic()
        await running.all_up()
        await load.end()
        findings.end_s.append(time.monotonic() - calm_s)
    async with PostgresStore(running.address, patience_s=PATIENCE_S) as store:
        lies = [*await laws.after_kill(store), *await laws.at_end(store), *book.lies]
    checked = await check(running.address, every_run=True, tell=lambda runs, of: None, patience_s=PATIENCE_S)
    lies += checked.problems
    findings.steps_ms += laws.waits_ms
    new = [run for run in laws.records.values() if run.id not in laws.settled]
    numbers = {run.no for run in new}
    hands = [hand for hand in await hands_of(running.address) if hand.run_no in numbers]
    dates = {
        run.no: [datetime.fromisoformat(decode_event(data).at) for data in laws.logs[run.id].events]
        for run in new
    }
    require([*zombies(hands), *misdated(hands, dates), *mostly_untimely(findings.steps_ms), *lies], place)
    await running.read_everywhere(book, place)
    findings.seen.update(f"faults: {fault.kind}" for fault in faults)
    findings.seen["runs: taken over"] += sum(hand.was_lost for hand in hands)
    count_round(findings.seen, laws)
    laws.settled.update(laws.logs)


def mostly_untimely(waits_ms: Sequence[tuple[float, float]]) -> Iterator[str]:
    """What is wrong with most waits that went on elsewhere, by what they took there and what was due."""
    late_ms = [took_ms - due_ms for took_ms, due_ms in waits_ms]
    if len(late_ms) >= SOME and median(late_ms) > MOSTLY_LATE_MS:
        yield f"{len(late_ms)} waits went on elsewhere, and half ended {median(late_ms):.0f} ms late or later"
    early_ms = [due_ms - took_ms for took_ms, due_ms in waits_ms if due_ms]
    if len(early_ms) >= SOME and median(early_ms) > MOSTLY_EARLY_MS:
        yield f"{len(early_ms)} waits went on elsewhere, and half ended {median(early_ms):.0f} ms too early"


async def breaking(running: Cluster, faults: Iterable[Fault], load: Load) -> None:
    """Lets the faults happen, those of one process one by one; returns when the last one is over."""
    going: dict[str, asyncio.Task[None]] = {}
    try:
        for fault in faults:
            await asyncio.sleep(fault.gap_s)
            load.check()
            if (before := going.get(fault.target)) is not None:
                await before
            going[fault.target] = asyncio.create_task(running.suffer(fault), name=str(fault))
        await asyncio.gather(*going.values())
    finally:
        for task in going.values():
            task.cancel()
        await asyncio.gather(*going.values(), return_exceptions=True)


async def _control(seed: int, plant: str, kind: Kind, expected: str) -> str:
    """With this fault in the program, or else in the store, its law must be broken; what was said."""
    # The other worker takes their runs over; those that are stopped need a while to have some again.
    gap_s = 1.5 if kind == "stop" else 0.5
    faults = [
        Fault(gap_s, name, kind, 0.1 if kind == "stop" else 3 * LEASE_S, far_s)
        for far_s in (60.0, -60.0)
        for name in ("worker 1", "worker 2")
    ] * CONTROL_EACH
    what = plant or "a store that ignores fences"
    began_s, findings = time.monotonic(), Broken()
    shape = Shape(CONTROL_NAMES, plant=plant, ignores_fence=not plant)
    async with Cluster.running(seed, shape) as running:
        laws = Laws(Book(), running.outside, late_ms=LATE_MS, early_ms=EARLY_MS)
        for times in range(1, CONTROL_ROUNDS + 1):
            place = f"control, seed {seed}, round {times}"
            try:
                await _broken(running, faults, place, laws, findings)
            except AssertionError as lie:
                # A caller may have seen something before the laws were asked.
                lies = [*str(lie).splitlines(), *zombies(await hands_of(running.address))]
                told = [each for each in lies if expected in each]
                if not told:
                    raise AssertionError(f"{what} is not told as {expected!r}") from lie
                return f"control, {what}: {time.monotonic() - began_s:.0f} s: {told[0]}"
    raise AssertionError(f"seed {seed}: nobody sees in {CONTROL_ROUNDS} rounds: {what}")
