"""Large runs, read by many at once: as traces, trees, files, replays and diffs, and by who takes nothing.

And searches that look through much and find nothing, counts, lists that are followed, and who leaves them.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import quote

from tests.prove.attacking.attack import COPY, Family, Field, loop
from tests.prove.attacking.http import ATTACKER

READING = Family("reading")

READERS = 24
AS_FAST_AS_ANSWERED = 2000.0
RUNS = 3
WAIT_S = 60.0
LONG = loop(1000, [{**COPY[0], "input": {"text": "x" * 2000}}], beside=50)


async def _long_runs(field: Field) -> None:
    """Runs with logs of some ten megabytes, unless there are such runs; as many as time allows."""
    if await _ids(field):
        return
    slug = await field.publish("long", LONG, capture="full")
    with suppress(TimeoutError):
        async with asyncio.timeout(field.left_s - 2):
            await field.together(RUNS, lambda _: field.execute(slug, role="run", timeout_s=WAIT_S))


async def _large_content(field: Field) -> None:
    """A run that keeps as much of its input as it may, unless there is one."""
    if not await _ids(field, "large"):
        slug = await field.publish("large", COPY, capture="full")
        await field.execute(slug, {"message": "x" * 9_000_000, "trace": True}, role="run")


async def _ids(field: Field, slug: str = "long") -> list[str]:
    page = (await field.call("GET", f"/flow-runs?status=completed&flow={slug}&limit=10")).json()
    return [run["id"] for run in page.get("runs", [])]


async def _read(field: Field, targets: list[str], *headers: tuple[str, str], slug: str = "long") -> None:
    """Reads these of each run, as many at once as there are readers."""
    ids = await _ids(field, slug)
    if not ids:
        field.complain("there is nothing to be read")
        return
    wanted = itertools.cycle(
        f"/flow-runs/{run_id}/{target.format(other=ids[(place + 1) % len(ids)])}"
        for place, run_id in enumerate(ids)
        for target in targets
    )

    async def one(_: int) -> None:
        answer = await field.call("GET", next(wanted), headers=headers, timeout_s=20)
        if answer.status not in (0, 200, 206, 429, 503):
            field.complain(f"a reader got {answer.status}: {answer.body[:100]!r}")

    await field.flood(one, beside=READERS, per_s=AS_FAST_AS_ANSWERED)


READ = {
    "large-traces": ["trace"],
    "all-attempts": ["steps/copy/trace?attempt=all"],
    "timelines": ["trace/timeline?buckets=2000", "trace/timeline?buckets=1999&from=1"],
    "diffs": ["diff/{other}?all=true", "diff/{other}"],
    "exports": [f"export?format={name}" for name in ("jsonl", "json", "otlp", "perfetto")],
}
READING.each("read", _read, READ, prepare=_long_runs)
READ_WITH_A_HEADER = {
    "replays": (["trace/stream"], ("Connection", "close")),
    "outlines": (["trace/outline?limit=200000", "trace/outline?limit=500"], ("Accept-Encoding", "gzip")),
}
READING.each("read", lambda field, read: _read(field, *read), READ_WITH_A_HEADER, prepare=_long_runs)


@READING.attack("read", prepare=_large_content)
async def ranges_of_large_content(field: Field) -> None:
    await _read(field, ["steps/copy/payload?part=input"], ("Range", "bytes=0-0"), slug="large")


@READING.attack("read", prepare=_long_runs)
async def readings_that_nobody_takes(field: Field) -> None:
    kinds = ("trace", "export", "export?format=jsonl", "trace/outline?limit=200000", "trace/stream")
    await field.unread([f"/flow-runs/{run_id}/{kind}" for run_id in await _ids(field) for kind in kinds], 300)


@READING.attack("read", prepare=_long_runs)
async def readings_that_are_left(field: Field) -> None:
    ids = await _ids(field)
    kinds = ("trace", "trace/stream", f"diff/{ids[0]}", "export")
    targets = [f"/flow-runs/{run_id}/{kind}" for run_id in ids for kind in kinds]
    await field.flood(lambda n: field.leave(targets[n % len(targets)]), beside=16, per_s=150)


SEARCHES = Family("searches")

PAIRS = [",".join(f"{chr(97 + a)}{chr(97 + b)}" for b in range(20)) for a in range(25)]
MANY_TERMS = " ".join(f"-model:{names}" for names in PAIRS)[:1800].rpartition(",")[0]

SMALL_RUNS = 600
NEAR_SLUG = "a" * 52
LEFT_S = 4.0
"""Within which its own list must be there: it shows three seconds later who has left."""


def _runs(query: str, *, limit: int = 1) -> str:
    return f"/flow-runs?limit={limit}&q={quote(query)}"


def _counts(query: str) -> str:
    return f"/flow-runs/histogram?buckets=200&q={quote(query)}"


async def _made(field: Field, count: int, make: Callable[[int], Awaitable[object]]) -> None:
    """So many of what an attack looks for, or as many as time allows."""

    async def lane(start: int) -> None:
        for number in range(start, count, 8):
            if field.left_s > 3:
                await make(number)

    await field.together(8, lane)


async def _many_runs(field: Field) -> None:
    if not (await field.call("GET", _runs("flow:copy", limit=100))).json().get("nextCursor"):
        await _made(field, SMALL_RUNS, lambda _: field.job("copy", {"message": "x" * 200}, role="run"))


async def _long_text(field: Field) -> None:
    slug = await field.publish("keep", COPY, capture="full")
    for _ in range(3):
        await field.execute(slug, {"message": "a" * 9_000_000}, role="run")


async def _near_slugs(field: Field) -> None:
    async def push(number: int) -> None:
        slug = f"{NEAR_SLUG}{number:04d}"
        await field.call("PUT", f"/flows/{ATTACKER}/{slug}", {"slug": slug, "steps": COPY}, role="admin")

    await _made(field, 300, push)


async def _asked(field: Field, targets: list[str]) -> None:
    await field.flood(
        lambda number: field.call("GET", targets[number % len(targets)]), beside=16, per_s=AS_FAST_AS_ANSWERED
    )


REPEATING = "text:" + "a" * 1900 + "b"
OF_MANY_RUNS = {
    "text-that-is-nowhere": [_runs("text:zzzyq")],
    "many-terms": [_runs(f"status:running {MANY_TERMS}", limit=100)],
    "counts": [_counts(""), _counts(MANY_TERMS)],
}
SEARCHES.each("read", _asked, {"text-that-repeats-itself": [_runs(REPEATING)]}, prepare=_long_text)
SEARCHES.each("read", _asked, OF_MANY_RUNS, prepare=_many_runs)
ALMOST = {"almost-a-slug": [_runs(f"flow:{NEAR_SLUG}zzzz")]}
SEARCHES.each("read", _asked, ALMOST, prepare=_near_slugs, leaves_work=True)


async def _followed(field: Field, query: str, *, count: int) -> None:
    """So many lists that are followed and read. Complains where none could be opened."""
    streams = await field.streams(f"/flow-runs/stream?q={quote(query)}", count)
    if not streams:
        field.complain("no list could be followed")
    with suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, field.left_s)):
            await field.together(len(streams), lambda number: streams[number].read_all())


@SEARCHES.attack("run", leaves_work=True)
async def followed_lists(field: Field) -> None:
    """200 lists that are followed, in a project that begins 40 runs a second."""
    await asyncio.gather(
        _followed(field, "", count=200), field.flood(lambda _: field.job("copy"), beside=4, per_s=40)
    )


@SEARCHES.attack("run", leaves_work=True)
async def followed_lists_of_a_text(field: Field) -> None:
    """20 lists that are followed by a text that repeats itself, beside runs that hold such texts."""
    slug = await field.publish("keep", COPY, capture="full")
    long = {"message": "a" * 300_000}
    await asyncio.gather(
        _followed(field, REPEATING, count=20),
        field.flood(lambda _: field.execute(slug, long), beside=4, per_s=20),
    )


@SEARCHES.attack("read", prepare=_long_text)
async def searches_that_are_left(field: Field) -> None:
    """Counts by a text that repeats itself, asked for and left at once, 200 a second."""
    with suppress(TimeoutError):
        async with asyncio.timeout(field.left_s / 2):
            await field.flood(lambda _: field.leave(_counts(REPEATING)), beside=16, per_s=200)
    left_s = time.monotonic()
    own = await field.call("GET", "/flow-runs?limit=1", timeout_s=LEFT_S)
    took_s = time.monotonic() - left_s
    if own.status != 200:
        field.complain(f"{took_s:.1f} s after its searches were left its own list gave {own.status}")
