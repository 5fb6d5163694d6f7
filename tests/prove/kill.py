"""`prove kill`: a server under load is killed, started and checked, again and again.

It is killed from outside at random moments, and kills itself at each place where something is about to be
written or has just been written. After each kill its data is read as it was left; at the end of a round
everything must have come to its end, and every reader be told the same.
"""

import asyncio
import random
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from signal import SIGKILL
from statistics import median
from time import monotonic
from typing import NamedTuple

import httpx2

from runglass.store.sqlite.store import SqliteStore
from tests.laws.law import require
from tests.prove.furnish import furnish_kill
from tests.prove.killing.flows import Outside
from tests.prove.killing.laws import Laws, faults
from tests.prove.killing.line import TIMEOUT_S, Book, Line, disagreements
from tests.prove.killing.load import Load, count_round
from tests.prove.killing.server import KilledServer, kept_after_a_lie
from tests.prove.report import as_one_lie, lines

LANES = 2
"""Servers that are killed side by side, each on data of its own: most of a life is waiting."""
ROUND = 40
"""Kills per folder of data: bounds what is read again after each."""
CALLERS, WATCHERS = 8, 3
RANDOM_SHARE = 0.25
REACH = 4
"""How often a point is taken to be passed in a life, before it is known better."""
MOST_REACH = 200
LIFE_S = 0.6
"""Longest life of a server that does not come to the point where it was to die, once it is ready."""
STARTING_S, STARTING_SHARE = 0.2, 0.25
"""The time that a start takes, and how many of the random kills fall into it."""
STOP_SHARE, STOP_GRACE_S = 0.15, 0.1
"""How many of them are no kills but a SIGTERM, and how long steps may then take to end."""
LINGER_S = 0.02


class Death(NamedTuple):
    """How a server is to die: at the `nth` pass of a point, and else so many seconds after it was started,
    or after it was `ready`; from outside it is killed, or told to stop."""

    point: str | None = None
    nth: int = 1
    linger_s: float = 0.0
    ready: bool = True
    seconds: float = LIFE_S
    stop: bool = False


class Places:
    """Chooses where the next server dies, so that all points are hit about equally often.

    How often a point is passed is not known beforehand: `reach` of it grows when it was hit and shrinks when
    it was not. `points` are those that any server has passed, `seen` is what all rounds add up to, and
    `resume_s` are the seconds until a run that was cut off went on.
    """

    def __init__(self, seed: int) -> None:
        self.points: set[str] = set()
        self.seen: Counter[str] = Counter()
        self.resume_s: list[float] = []
        self._reach: dict[str, int] = {}
        self._random = random.Random(f"places {seed}")

    def choose(self) -> Death:
        points = sorted(self.points)
        if not points or self._random.random() < RANDOM_SHARE:
            match self._random.random():
                case share if share < STARTING_SHARE:
                    return Death(ready=False, seconds=self._random.uniform(0, STARTING_S))
                case share if share > 1 - STOP_SHARE:
                    return Death(seconds=self._random.uniform(0, LIFE_S), stop=True)
            return Death(seconds=self._random.uniform(0, LIFE_S))
        weights = [1 / (1 + self.seen[f"kills: {point}"]) ** 2 for point in points]
        (point,) = self._random.choices(points, weights)
        nth = self._random.randint(1, self._reach.get(point, REACH))
        return Death(point, nth, linger_s=self._random.choice([0.0, LINGER_S]))

    def note(self, death: Death, crashed: str | None) -> str:
        """The moment at which a server has died that was to die so."""
        moment = crashed or ("a signal to stop" if death.stop else "a random moment")
        self.seen[f"kills: {moment}"] += 1
        if death.point is not None:
            reach = self._reach.get(death.point, REACH)
            self._reach[death.point] = min(MOST_REACH, reach * 2) if crashed else max(1, reach // 2)
        return moment


async def kill(kills: int = 1000, seed: int = 0) -> list[str]:
    """Kills a server so many times; the lines of a report. Raises AssertionError that names seed and kill."""
    began_s = monotonic()
    places = Places(seed)
    rounds = iter(range(0, kills, ROUND))

    async def lane() -> None:
        for first in rounds:
            await _round(first, min(ROUND, kills - first), seed, places)

    with as_one_lie():
        async with asyncio.TaskGroup() as lanes:
            for _ in range(min(LANES, -(-kills // ROUND))):
                lanes.create_task(lane())
    if kills:
        assert "COMMIT, done" in places.points, f"no server passed a commit of its own: {places.points}"
    resume_ms = sorted(1000 * seconds for seconds in places.resume_s)
    p99 = resume_ms[len(resume_ms) * 99 // 100] if resume_ms else 0.0
    return [
        f"{kills} kills in {monotonic() - began_s:.0f} s, {len(places.points)} points",
        *lines(places.seen),
        f"from ready to the next event of a run that was cut off: p50 {median(resume_ms or [0]):.0f} ms,"
        f" p99 {p99:.0f} ms, max {max(resume_ms, default=0):.0f} ms",
    ]


async def _round(first: int, kills: int, seed: int, places: Places) -> None:
    book = Book()
    async with _server() as (server, line, outside):
        server.points = places.points
        laws = Laws(book, outside)
        place = f"seed {seed}, after kill {first + kills}"
        async with Load(line, book, f"{seed} {first}", callers=CALLERS, watchers=WATCHERS) as load:
            for number in range(first + 1, first + kills + 1):
                death = places.choose()
                await _die(server, death)
                moment = places.note(death, server.crashed)
                await _check(laws, server, f"seed {seed}, kill {number} at {moment}")
                load.check()
            await server.start()
            await server.ready()
            await load.end()
            require(await disagreements(line, book), place)
        server.kill()
        await server.gone.wait()
        await _check(laws, server, place)
        async with as_it_was_left(server.template.settings.database) as store:
            require([*await laws.at_end(store), *await faults(store)], place, server.said())
        count_round(places.seen, laws)
        places.seen["runs: cut off"] += laws.cut_off
        places.resume_s += laws.resume_s


async def _die(server: KilledServer, death: Death) -> None:
    await server.start(point=death.point, nth=death.nth, linger_s=death.linger_s)
    if death.ready:
        await server.ready_or_gone()
    try:
        async with asyncio.timeout(death.seconds):
            await server.gone.wait()
    except TimeoutError:
        if death.stop:
            await server.stop()
            return
        server.kill()
        await server.gone.wait()
    if server.exit_code != -SIGKILL:
        raise AssertionError(f"the server ended by itself with {server.exit_code}: {server.said()}")


async def _check(laws: Laws, server: KilledServer, place: str) -> None:
    async with as_it_was_left(server.template.settings.database) as store:
        require(await laws.after_kill(store, server.ready_at), place, server.said())
    require(laws.book.lies, place, server.said())


@asynccontextmanager
async def as_it_was_left(database: Path) -> AsyncIterator[SqliteStore]:
    """A store on a copy of the file and its log, which to open would mend. Nobody may write to them."""
    copy = database.with_name("copy.db")
    for suffix in ("", "-wal"):
        source = database.with_name(database.name + suffix)
        target = copy.with_name(copy.name + suffix)
        target.unlink(missing_ok=True)
        if source.exists():
            shutil.copyfile(source, target)
            target.chmod(0o600)
    async with SqliteStore(copy, synchronous="NORMAL") as store:
        yield store


@asynccontextmanager
async def _server() -> AsyncIterator[tuple[KilledServer, Line, Outside]]:
    """A server that is yet to be started, on data with all flows; that of a lie is kept."""
    with kept_after_a_lie("runglass-kill-") as folder:
        async with AsyncExitStack() as stack:
            outside = await stack.enter_async_context(Outside().serving())
            settings = outside.settings(folder, synchronous="FULL", stop_grace_s=STOP_GRACE_S)
            async with SqliteStore(settings.database, synchronous="NORMAL") as store:
                key = await furnish_kill(store)
            server = await stack.enter_async_context(KilledServer.made(settings))
            headers = {"Authorization": f"Bearer {key}"}
            client = httpx2.AsyncClient(base_url=server.base_url, headers=headers, timeout=TIMEOUT_S)
            yield server, Line(server, await stack.enter_async_context(client)), outside
