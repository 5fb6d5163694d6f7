"""`prove rolling`: each process of a cluster is replaced in its turn, under load, and nobody notices.

No event may be lost or repeated, no step begun again, and no call may fail that is sent again under its key.
With an older program, out of the history of the repository, the cluster begins with that; the database is
migrated beside it, and its processes are replaced by those of this program, and these by older ones again.
What comes out is a transcript, of which `docs/rolling-restart.md` has some.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack

from runglass.store.postgres.store import PostgresStore
from tests.laws.law import require
from tests.postgres_server import connected
from tests.prove.clustering.cluster import CALLERS, NAMES, Cluster, Shape
from tests.prove.clustering.database import Hand, hands_of, zombies
from tests.prove.killing.laws import Laws
from tests.prove.killing.line import Book
from tests.prove.killing.load import Load
from tests.prove.killing.server import THIS, Program, taken_from_history
from tests.prove.report import noted

GRACE_S = 5.0
"""Longer than any step of the load takes: what had begun ends where it was."""
LEASE_S = 60.0
"""Longer than any process stands still on a machine that does other things: a lease that ran out says nothing
of a restart."""
LATE_MS = 10_000
"""How late a wait may end: one that nobody goes on with before a lease has run out ends a minute late."""
EARLY_MS = 100
"""How early: who goes on with it and who began it each know the time of the database to half a round trip."""
WATCHERS = 24
"""So many that each process is left by some of them: of fewer none may follow a run of it just then."""
BETWEEN_S = 1.0
WAITS = ("hold", "rest")
"""Steps that only wait: a stop leaves them at once, and their deadline stays."""
PATIENCE_S = 5.0
FEWER_NAMES = ("server 1", "server 2", "worker 1", "worker 2")
"""Where each process is replaced twice."""

_NOW = "SELECT clock_timestamp()"
# Between two events of any runs, of which one at least is younger.
_LONGEST_PAUSE = (
    "SELECT coalesce(max(extract(epoch FROM at - before)), 0)::float8 FROM"
    " (SELECT at, lag(at) OVER (ORDER BY at) AS before FROM prove.hand) AS hand WHERE at > $1"
)
_SCHEMA = "SELECT max(number) FROM schema_migration"

Say = Callable[[str], None]


async def rolling(seed: int = 0, older: str | None = None) -> list[str]:
    """Replaces every process; the lines of a transcript. Raises AssertionError for a lie.

    Once, or, with the commit of an `older` program, once by this program and once by the older one again.
    """
    book, lines = Book(of_before=older is not None), []
    began_s = time.monotonic()

    def say(what: str) -> None:
        lines.append(f"{time.monotonic() - began_s:5.1f} s  {what}")

    with ExitStack() as stack:
        first = THIS if older is None else stack.enter_context(taken_from_history(older))
        stack.enter_context(noted(lines))
        names = NAMES if first is THIS else FEWER_NAMES
        shape = Shape(names, LEASE_S, GRACE_S, first)
        async with Cluster.running(seed, shape) as running:
            laws = Laws(book, running.outside, late_ms=LATE_MS, early_ms=EARLY_MS)
            began_s = time.monotonic()
            async with running.load(book, f"rolling {seed}", watchers=WATCHERS) as load:
                say(f"{CALLERS} callers and {WATCHERS} readers on {', '.join(names)}, of {first.name}")
                if first is not THIS:
                    await _migrate(running, say)
                for program in (THIS,) if first is THIS else (THIS, first):
                    await _replace_all(running, program, load, say)
                await asyncio.sleep(BETWEEN_S)
                await running.all_up()
                await load.end()
                say("no more calls; every run has ended")
            async with PostgresStore(running.address, patience_s=PATIENCE_S) as store:
                lies = [*await laws.after_kill(store), *await laws.at_end(store), *book.lies]
            hands = await hands_of(running.address)
            require([*lies, *zombies(hands), *_lost(laws, hands), *_unshown(book)], "rolling")
            await running.read_everywhere(book, "rolling")
    runs, events = len(laws.logs), sum(len(log.events) for log in laws.logs.values())
    return [
        *lines,
        f"{runs} runs with {events} events",
        f"{book.events} events were sent to readers, through {book.resumes} resumes: none is missing or came"
        " twice",
        f"{book.repeats} calls were sent again under their key: none was done twice",
        f"{running.outside.total} calls of a model, each by an attempt of its own; no step was begun again",
    ]


async def _replace_all(running: Cluster, program: Program, load: Load, say: Say) -> None:
    for name in sorted(running.members):
        await asyncio.sleep(BETWEEN_S)
        load.check()
        ended_s = await running.members[name].replace(program)
        say(f"{name}: SIGTERM, gone after {ended_s:.2f} s; another one is ready, of {program.name}")


async def _migrate(running: Cluster, say: Say) -> None:
    """`runglass migrate` of this program, while processes of an older one go on."""
    await asyncio.sleep(BETWEEN_S)
    async with connected(running.address) as connection:
        before, began_at = await connection.fetchval(_SCHEMA), await connection.fetchval(_NOW)
        await THIS.run("runglass", "migrate", "--store", running.address)
        after = await connection.fetchval(_SCHEMA)
        await asyncio.sleep(BETWEEN_S)
        pause_s = await connection.fetchval(_LONGEST_PAUSE, began_at)
    say(
        f"runglass migrate: from schema {before} to {after}; no event was written for"
        f" {1000 * pause_s:.0f} ms at most"
    )


def _lost(laws: Laws, hands: Iterable[Hand]) -> list[str]:
    """Attempts that were cut off and runs that were taken from who had them, of which there is none."""
    attempts = [
        f"attempt {address} of run {log.run_id} was lost"
        for log in laws.logs.values()
        for address, _ in log.lost
        if address.step_id not in WAITS
    ]
    return attempts + [f"a run was taken from who had it: {hand}" for hand in hands if hand.was_lost]


def _unshown(book: Book) -> list[str]:
    """What the replacing came in nobody's way of, and so has shown nothing about."""
    shown = {
        "no stream was cut: this has shown nothing about streams": book.resumes,
        "no call was sent again: this has shown nothing about calls under a key": book.repeats,
    }
    return [what for what, count in shown.items() if not count]
