"""`prove cuts`: whatever the network does to a stream, each reader sees every event once and in order.

Recorded streams are cut at every byte offset, and at random ones, for each of three readers; then a proxy
cuts a real server off while runs are going on. A failure names the seed and the cuts.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import msgspec

from tests.prove.proxied import KINDS, Kind, break_live, expected, reader
from tests.prove.recorded import WAYS, Cut, Reading, Recording, Replay, record
from tests.prove.report import as_one_lie, lines, noted

PROCESSES = 2
MOST_CUTS = 6
"""In a row, and fewer than a client forgives: after the last one the stream is left whole."""

READERS_AT_ONCE = 4
LONGEST_S = 60.0
KEY = "nk_prove"


class Task(msgspec.Struct, frozen=True):
    """Readings for one kind of reader: each begins with a cut of that recording at that offset."""

    kind: Kind
    places: tuple[tuple[int, int], ...]
    seed: str


def cuts(resumes: int = 100_000, *, live_resumes: int = 3_000, seed: int = 0) -> list[str]:
    """Breaks streams until the readers have come back that often. Raises AssertionError on a lie."""
    began = time.monotonic()
    recordings = record()
    places = every_offset(recordings)
    seen: Counter[str] = Counter()
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        parts = [tuple(places[part::PROCESSES]) for part in range(PROCESSES)]
        tasks = [Task(kind, part, str(seed)) for kind in KINDS for part in parts]
        while True:
            for counted in pool.map(break_recorded, [recordings] * len(tasks), tasks):
                seen.update(counted)
            missing = resumes - seen["streams: resumes"]
            if missing <= 0:
                break
            # A reading resumes three times or so.
            share = missing // (3 * len(KINDS)) + 1
            named = f"{seed}.{missing}"
            tasks = [
                Task(kind, tuple(random.Random(f"{named}.{kind}").choices(places, k=share)), named)
                for kind in KINDS
            ]
    took_s = time.monotonic() - began
    return [
        *(f"recorded: {each.name} stream, {each.size} bytes, {len(each.rows)} events" for each in recordings),
        f"cut at each of {len(places):,} offsets for each of {len(KINDS)} readers, then others; seed {seed}",
        *lines(seen),
        f"that took {took_s:.0f} s",
        *break_live(live_resumes, seed=seed),
        "nothing was lost, repeated or out of order, and nobody asked for more than it lacked",
    ]


def every_offset(recordings: Sequence[Recording]) -> list[tuple[int, int]]:
    """Each place where a recorded stream can be cut: before its first byte, after its last, and between."""
    return [(number, at) for number, each in enumerate(recordings) for at in range(each.size + 1)]


def break_recorded(recordings: Sequence[Recording], task: Task) -> Counter[str]:
    """Plays every reading of the task, and counts. Raises AssertionError with the one that went wrong."""
    with as_one_lie():
        return asyncio.run(_break_recorded(recordings, task))


async def _break_recorded(recordings: Sequence[Recording], task: Task) -> Counter[str]:
    whole = [expected(task.kind, recording.rows) for recording in recordings]
    numbered = enumerate(task.places)
    seen: Counter[str] = Counter()
    async with Replay().serving() as replay:

        async def read_on(places: Iterator[tuple[int, tuple[int, int]]]) -> None:
            for run, (number, offset) in places:
                reading = Reading(recordings[number], _cuts(task, number, offset))
                replay.expect(str(run), reading)
                with noted([f"seed {task.seed!r}, {task.kind}, {reading.recording.name}, {reading.cuts}"]):
                    async with asyncio.timeout(LONGEST_S):
                        told = await read(str(run))
                    assert told == whole[number], f"it saw {told} instead of {whole[number]}"
                    assert not reading.lies, "; ".join(reading.lies)
                seen[f"readers: {task.kind}"] += 1
                seen["streams: resumes"] += reading.connections - 1

        async with reader(task.kind, replay.base_url, KEY) as read, asyncio.TaskGroup() as readers:
            for _ in range(READERS_AT_ONCE):
                readers.create_task(read_on(numbered))
        await replay.require_all_left()
    seen.update({f"streams: {way}": count for way, count in replay.broken.items()})
    return seen


def _cuts(task: Task, number: int, offset: int) -> list[Cut]:
    chance = random.Random(f"{task.seed} {task.kind} {number} {offset}")

    def cut(at: int) -> Cut:
        pauses = chance.choices(range(1 << 20), k=chance.randint(1, 3)) if chance.random() < 0.1 else ()
        return Cut(at, chance.choice(WAYS), tuple(pauses))

    return [cut(offset), *(cut(chance.randrange(1 << 20)) for _ in range(chance.randrange(MOST_CUTS)))]
