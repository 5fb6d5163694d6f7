"""`prove kill`: a server under load is killed, started and checked, again and again.

It is killed from outside at random moments, and kills itself at each place where something is about to be
written or has just been written. After each kill its data is read as it was left; at the end of a round
everything must have come to its end, and every reader be told the same.
"""

import asyncio
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGKILL
from statistics import median
from time import monotonic
from typing import NamedTuple

import httpx2

from runglass.config.settings import Settings
from runglass.flows.parser import parse_flow
from runglass.log.trace import TERMINAL
from runglass.runtime.runtime import push_flow
from runglass.store.sqlite.store import SqliteStore
from runglass.wire.admin_api import make_key
from tests.prove.killing.book import PLACE, Asked, Book
from tests.prove.killing.callers import Callers
from tests.prove.killing.flows import CUT_OFF_TIMES, FLOWS, parameters
from tests.prove.killing.laws import Laws
from tests.prove.killing.line import TIMEOUT_S, Line
from tests.prove.killing.outside import NO_PATH, Effect, Outside
from tests.prove.killing.reading import all_ended, disagreements, listed_runs
from tests.prove.killing.server import KilledServer, free_port
from tests.prove.killing.snapshot import as_it_was_left, faults

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
END_LIMIT_S = 30.0
"""How long runs and callers may take to come to an end after the last start."""
READ = 40
"""Runs of a round that are read over HTTP at its end; the data of all is checked."""
MANY = 1_000_000


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
    it was not.
    """

    def __init__(self, seed: int) -> None:
        self.hits: Counter[str] = Counter()
        self.random_kills = 0
        self.stops = 0
        self._reach: dict[str, int] = {}
        self._random = random.Random(f"places {seed}")

    def choose(self, known: Iterable[str]) -> Death:
        points = sorted(known)
        if not points or self._random.random() < RANDOM_SHARE:
            match self._random.random():
                case share if share < STARTING_SHARE:
                    return Death(ready=False, seconds=self._random.uniform(0, STARTING_S))
                case share if share > 1 - STOP_SHARE:
                    return Death(seconds=self._random.uniform(0, LIFE_S), stop=True)
            return Death(seconds=self._random.uniform(0, LIFE_S))
        weights = [1 / (1 + self.hits[point]) ** 2 for point in points]
        (point,) = self._random.choices(points, weights)
        nth = self._random.randint(1, self._reach.get(point, REACH))
        return Death(point, nth, linger_s=self._random.choice([0.0, LINGER_S]))

    def note(self, death: Death, crashed: str | None) -> None:
        if crashed is not None:
            self.hits[crashed] += 1
        elif death.stop:
            self.stops += 1
        else:
            self.random_kills += 1
        if death.point is not None:
            reach = self._reach.get(death.point, REACH)
            self._reach[death.point] = min(MOST_REACH, reach * 2) if crashed else max(1, reach // 2)


class Findings:
    """What all rounds add up to."""

    def __init__(self) -> None:
        self.kills = 0
        self.runs = 0
        self.events = 0
        self.told = 0
        self.resumes = 0
        self.repeats = 0
        self.effects = 0
        self.lost = 0
        self.cut_off = 0
        self.resume_s: list[float] = []
        self.statuses: Counter[str] = Counter()

    def add(self, laws: Laws, book: Book, outside: Outside) -> None:
        self.runs += len(laws.logs)
        self.events += sum(len(log.events) for log in laws.logs.values())
        self.lost += sum(len(log.lost) for log in laws.logs.values())
        self.statuses.update(log.status for log in laws.logs.values())
        self.cut_off += laws.cut_off
        self.resume_s += laws.resume_s
        self.told += book.events
        self.resumes += book.resumes
        self.repeats += book.repeats
        self.effects += outside.total


async def kill(kills: int = 1000, seed: int = 0) -> list[str]:
    """Kills a server so many times; the lines of a report. Raises AssertionError that names seed and kill."""
    began_s = monotonic()
    findings, places = Findings(), Places(seed)
    points: set[str] = set()
    rounds = iter(range(0, kills, ROUND))

    async def lane() -> None:
        for first in rounds:
            await _round(first, min(ROUND, kills - first), seed, places, points, findings)

    try:
        async with asyncio.TaskGroup() as lanes:
            for _ in range(min(LANES, -(-kills // ROUND))):
                lanes.create_task(lane())
            limit = lanes.create_task(_limit_of_retries(seed))
    except ExceptionGroup as failures:
        # One lie ends all lanes, and is told as itself.
        raise failures.exceptions[0] from None
    return [*_report(findings, places, points, monotonic() - began_s), limit.result()]


async def _round(
    first: int, kills: int, seed: int, places: Places, points: set[str], findings: Findings
) -> None:
    """One folder of data from the first run to the last check."""
    book = Book()
    async with _server(seed + first, crash_retries=MANY) as (server, line, outside):
        server.points |= points
        laws = Laws(book, outside)
        callers = Callers(server, line, book, seed=f"callers {seed} {first}")
        calling = [asyncio.create_task(callers.call()) for _ in range(CALLERS)]
        watching = [asyncio.create_task(callers.watch()) for _ in range(WATCHERS)]
        try:
            for number in range(first + 1, first + kills + 1):
                death = places.choose(server.points)
                await _die(server, death)
                places.note(death, server.crashed)
                place = server.crashed or "a random moment"
                await _check(laws, server, f"seed {seed}, kill {number} at {place}")
                _raise_failures([*calling, *watching])
                findings.kills += 1
            place = f"seed {seed}, after kill {first + kills}"
            await server.start()
            await server.ready()
            callers.closing.set()
            await _quiet(line, book, callers, calling, watching, place)
            known = [asked for asked in book.asked.values() if asked.run_id is not None]
            _judge(await disagreements(line, known[-READ:]), place)
        finally:
            for task in (*calling, *watching):
                task.cancel()
            await asyncio.gather(*calling, *watching, return_exceptions=True)
        server.kill()
        await server.gone.wait()
        await _check(laws, server, place)
        async with as_it_was_left(server.settings.database) as store:
            _judge([*await laws.at_end(store), *await faults(store)], place, server)
        points |= server.points
        findings.add(laws, book, outside)


async def _die(server: KilledServer, death: Death) -> None:
    """One life of the server."""
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
    async with as_it_was_left(server.settings.database) as store:
        _judge(await laws.after_kill(store, server.ready_at), place, server)
    _judge(laws.book.lies, place, server)


def _judge(lies: Iterable[str], place: str, server: KilledServer | None = None) -> None:
    found = list(lies)
    if found:
        said = "" if server is None else f"\nthe server said:\n{server.said()}"
        raise AssertionError("\n".join([f"{place}: {len(found)} lies", *found[:20]]) + said)


async def _quiet(
    line: Line,
    book: Book,
    callers: Callers,
    calling: list["asyncio.Task[None]"],
    watching: list["asyncio.Task[None]"],
    place: str,
) -> None:
    """Returns when every caller has its answer and nothing goes on any more."""
    try:
        async with asyncio.timeout(END_LIMIT_S):
            await asyncio.wait(calling)
            await all_ended(line)
            paused = await listed_runs(line, status="paused")
            followed = {run_id for run_id, readers in callers.watched.items() if readers}
            # Who follows a run that stays paused follows it for ever.
            if not followed & paused.keys():
                await asyncio.wait(watching)
        _raise_failures([*calling, *watching])
    except TimeoutError:
        runs = await listed_runs(line)
        ids = {asked.tag: asked.run_id for asked in book.asked.values()}
        odd = [
            f"{run_id} is {run['status']}" for run_id, run in runs.items() if run["status"] not in TERMINAL
        ]
        _judge(
            [
                f"not everything came to an end within {END_LIMIT_S:g} s of the last start",
                *(f"a caller still {who}, run {ids.get(who[-36:])}" for who in _names(calling, watching)),
                *odd,
            ],
            place,
        )


def _names(*groups: Iterable["asyncio.Task[None]"]) -> list[str]:
    return [task.get_name() for group in groups for task in group if not task.done()]


def _raise_failures(tasks: Iterable["asyncio.Task[None]"]) -> None:
    for task in tasks:
        if task.done():
            task.result()


@asynccontextmanager
async def _server(seed: int, *, crash_retries: int) -> AsyncIterator[tuple[KilledServer, Line, Outside]]:
    """A server that is yet to be started, on data with all flows; that of a lie is kept."""
    folder = Path(tempfile.mkdtemp(prefix="runglass-kill-"))
    try:
        async with _server_on(folder, seed, crash_retries) as parts:
            yield parts
    except AssertionError as lie:
        lie.add_note(f"the data is kept in {folder}")
        raise
    except BaseException:
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)


@asynccontextmanager
async def _server_on(
    folder: Path, seed: int, crash_retries: int
) -> AsyncIterator[tuple[KilledServer, Line, Outside]]:
    async with Outside.serving(seed) as outside:
        settings = Settings(
            data=folder,
            port=free_port(),
            synchronous="FULL",
            providers={"outside": outside.base_url},
            provider_keys={"outside": "none"},
            crash_retries=crash_retries,
            stop_grace_s=STOP_GRACE_S,
            log_level="warning",
        )
        key = await _furnish(settings)
        async with (
            KilledServer.made(settings) as server,
            httpx2.AsyncClient(
                base_url=server.base_url, headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT_S
            ) as http,
        ):
            yield server, Line(server, http), outside


async def _furnish(settings: Settings) -> str:
    """Puts all flows into a new database, published; the key to run them."""
    new = make_key()
    async with SqliteStore(settings.database, synchronous="NORMAL") as store:
        project = await store.ensure_project(*PLACE.split("/"))
        await store.add_key(project.id, "admin", new.digest, new.hint)
        for flow in FLOWS.values():
            record = await push_flow(store, project, parse_flow(flow.text))
            await store.publish(record.id)
    return new.key


async def _limit_of_retries(seed: int) -> str:
    """A step whose process dies each time is given up after `crash_retries`, and its run says why."""
    asked = Asked(tag="00000000-0000-4000-8000-000000000000", flow="silent", n=0, trigger="job")
    effect = Effect(asked.tag, "silent", NO_PATH)
    async with _server(seed, crash_retries=CUT_OFF_TIMES) as (server, line, outside):
        await server.start()
        body = {"message": "go", "parameters": parameters(asked.tag, 0)}
        job = await line.insist("POST", f"/seq/{PLACE}/silent/jobs", body)
        run_id = job.body["executionId"]
        for times in range(1, CUT_OFF_TIMES + 2):
            await _soon(outside.until_called(effect, times), f"seed {seed}: attempt {times} of a lost step")
            server.kill()
            await server.gone.wait()
            await server.start()
        await _soon(all_ended(line), f"seed {seed}: the end of a run that is cut off again and again")
        state = (await line.insist("GET", f"/seq/{PLACE}/silent/jobs/{run_id}")).body
        path = f"/flow-runs/{run_id}/steps/silent/trace?attempt=all"
        attempts = (await line.insist("GET", path)).body["attempts"]
        told = [(step["attempt"], step["status"], step["errorContext"]["code"]) for step in attempts]
        expected = [(number, "failed", "WORKER_LOST") for number in range(1, CUT_OFF_TIMES + 2)]
        assert state["status"] == "failed", f"seed {seed}, the limit of retries: {state}"
        assert told == expected, f"seed {seed}, the limit of retries: {told}"
        assert outside.total == CUT_OFF_TIMES + 1, f"seed {seed}: {outside.calls}"
    return (
        f"with crash_retries={CUT_OFF_TIMES} a step that was cut off {CUT_OFF_TIMES + 1} times"
        " is lost with WORKER_LOST"
    )


async def _soon(work: Awaitable[None], what: str) -> None:
    try:
        async with asyncio.timeout(END_LIMIT_S):
            await work
    except TimeoutError:
        raise AssertionError(f"{what} has not come within {END_LIMIT_S:g} s") from None


def _report(findings: Findings, places: Places, points: set[str], took_s: float) -> list[str]:
    resume_ms = sorted(1000 * seconds for seconds in findings.resume_s)
    p99 = resume_ms[len(resume_ms) * 99 // 100] if resume_ms else 0.0
    statuses = ", ".join(f"{count} {status}" for status, count in findings.statuses.most_common())
    return [
        f"{findings.kills} kills in {took_s:.0f} s: {places.hits.total()} at {len(points)} points,"
        f" {places.random_kills} at random moments, {places.stops} told to stop",
        f"{findings.runs} runs ({statuses}) with {findings.events} events",
        f"{findings.cut_off} times a run was cut off, {findings.lost} attempts lost and told as WORKER_LOST",
        f"{findings.told} events sent to readers, through {findings.resumes} resumes; {findings.repeats}"
        " calls sent again",
        f"{findings.effects} calls outside, each by an attempt of its own and none after its step had ended",
        f"from ready to a cut-off run's next event: p50 {median(resume_ms or [0]):.0f} ms, p99 {p99:.0f} ms,"
        f" max {max(resume_ms, default=0):.0f} ms",
        "hits: " + ", ".join(f"{point} {places.hits[point]}" for point in sorted(points)),
    ]
