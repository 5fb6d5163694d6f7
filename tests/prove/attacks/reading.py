"""Large runs, read by many at once: as traces, trees, files, replays and diffs, and by who takes nothing."""

import asyncio
import itertools
from contextlib import suppress

from tests.prove.attacking.attack import COPY, Family, loop
from tests.prove.attacking.field import Field

FAMILY = Family("reading")

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
FAMILY.each("read", _read, READ, prepare=_long_runs)


@FAMILY.attack("read", prepare=_long_runs)
async def replays(field: Field) -> None:
    await _read(field, ["trace/stream"], ("Connection", "close"))


@FAMILY.attack("read", prepare=_long_runs)
async def outlines(field: Field) -> None:
    targets = ["trace/outline?limit=200000", "trace/outline?limit=500"]
    await _read(field, targets, ("Accept-Encoding", "gzip"))


@FAMILY.attack("read", prepare=_large_content)
async def ranges_of_large_content(field: Field) -> None:
    await _read(field, ["steps/copy/payload?part=input"], ("Range", "bytes=0-0"), slug="large")


@FAMILY.attack("read", prepare=_long_runs)
async def readings_that_nobody_takes(field: Field) -> None:
    kinds = ("trace", "export", "export?format=jsonl", "trace/outline?limit=200000", "trace/stream")
    await field.unread([f"/flow-runs/{run_id}/{kind}" for run_id in await _ids(field) for kind in kinds], 300)


@FAMILY.attack("read", prepare=_long_runs)
async def readings_that_are_left(field: Field) -> None:
    ids = await _ids(field)
    kinds = ("trace", "trace/stream", f"diff/{ids[0]}", "export")
    targets = [f"/flow-runs/{run_id}/{kind}" for run_id in ids for kind in kinds]
    await field.flood(lambda n: field.leave(targets[n % len(targets)]), beside=16, per_s=150)
