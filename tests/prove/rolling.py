"""`prove rolling`: each process of a cluster is replaced in its turn, under load, and nobody notices.

No event may be lost or repeated, no step begun again, and no call may fail that is sent again under its key.
What comes out is a transcript, of which `docs/rolling-restart.md` has one.
"""

import asyncio
import time

from tests.prove.clustering.cluster import NAMES, Cluster
from tests.prove.clustering.hands import zombies
from tests.prove.clustering.load import CALLERS, WATCHERS, Load, judge, read_everywhere
from tests.prove.clustering.snapshot import ClusterData
from tests.prove.killing.book import Book
from tests.prove.killing.laws import Laws

GRACE_S = 5.0
"""Longer than any step of the load takes: what had begun ends where it was."""
LEASE_S = 10.0
BETWEEN_S = 1.0
WAITS = ("hold", "rest")
"""Steps that only wait: a stop leaves them at once, and their deadline stays."""
PROJECT = "demo"


async def rolling(seed: int = 0) -> list[str]:
    """Replaces every process once; the lines of a transcript. Raises AssertionError for a lie."""
    book, lines = Book(), []
    async with Cluster.running(seed, lease_s=LEASE_S, stop_grace_s=GRACE_S) as running:
        laws = Laws(book, running.outside)
        began_s = time.monotonic()

        def say(what: str) -> None:
            lines.append(f"{time.monotonic() - began_s:5.1f} s  {what}")

        async with Load(running, book, f"rolling {seed}") as load:
            say(f"{CALLERS} callers and {WATCHERS} readers on {', '.join(NAMES)}")
            for name in NAMES:
                await asyncio.sleep(BETWEEN_S)
                load.check()
                ended_s = await running.members[name].replace()
                say(f"{name}: SIGTERM, gone after {ended_s:.2f} s; another one is ready")
            await asyncio.sleep(BETWEEN_S)
            await load.end()
            say("no more calls; every run has ended")
        data = await ClusterData.read(running.address, PROJECT, after=0)
        judge([*laws.after_kill(data, ""), *laws.at_end(data), *zombies(data.hands), *book.lies], "rolling")
        lost = [
            f"{address} of run {log.run_id}"
            for log in laws.logs.values()
            for address, _ in log.lost
            if address.step_id not in WAITS
        ]
        judge([f"attempts were lost: {lost}"] if lost else [], "rolling")
        taken = [hand for hand in data.hands if hand.was_lost]
        judge([f"runs were taken from who had them: {taken}"] if taken else [], "rolling")
        await read_everywhere(running, book, "rolling")
    runs, events = len(laws.logs), sum(len(log.events) for log in laws.logs.values())
    return [
        *lines,
        f"{runs} runs with {events} events",
        f"{book.events} events were sent to readers, through {book.resumes} resumes: none is missing or came"
        " twice",
        f"{book.repeats} calls were sent again under their key: none was done twice",
        f"{running.outside.total} calls of a model, each by an attempt of its own; no step was begun again",
    ]
