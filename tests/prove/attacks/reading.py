"""Large runs, read by many at once: as traces, trees, files, replays and diffs, and by who takes nothing."""

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from tests.prove.attacking.attack import Family, until_over
from tests.prove.attacking.field import API, SOURCE, Field
from tests.prove.attacking.http import Connection, head

FAMILY = Family("reading")

READERS = 24
AS_FAST_AS_ANSWERED = 2000.0
RUNS = 3
ITERATIONS = 1000
WAIT_S = 60.0
LONG: list[dict[str, Any]] = [
    {
        "id": "each",
        "type": "loop",
        "over": f"list(range({ITERATIONS}))",
        "max_concurrency": 50,
        "steps": [{"id": "copy", "type": "passthrough", "input": {"text": "x" * 2000}}],
    }
]


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
        slug = await field.publish("large", [{"id": "copy", "type": "passthrough"}], capture="full")
        await field.execute(slug, {"message": "x" * 9_000_000, "trace": True}, role="run")


async def _ids(field: Field, slug: str = "long") -> list[str]:
    page = (await field.call("GET", f"/flow-runs?status=completed&flow={slug}&limit=10")).json()
    return [run["id"] for run in page.get("runs", [])]


async def _read(
    field: Field, *targets: str, slug: str = "long", headers: Sequence[tuple[str, str]] = ()
) -> None:
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


@FAMILY.attack("read", prepare=_long_runs)
async def large_traces(field: Field) -> None:
    """24 readers of traces of some megabytes."""
    await _read(field, "trace")


@FAMILY.attack("read", prepare=_long_runs)
async def all_attempts(field: Field) -> None:
    """24 readers of all attempts of a step in a loop."""
    await _read(field, "steps/copy/trace?attempt=all")


@FAMILY.attack("read", prepare=_long_runs)
async def replays(field: Field) -> None:
    """24 readers of the stream of a run that has ended, from its first event."""
    await _read(field, "trace/stream", headers=[("Connection", "close")])


@FAMILY.attack("read", prepare=_long_runs)
async def outlines(field: Field) -> None:
    """24 readers of outlines, whole and in pages."""
    gzip = [("Accept-Encoding", "gzip")]
    await _read(field, "trace/outline?limit=200000", "trace/outline?limit=500", headers=gzip)


@FAMILY.attack("read", prepare=_long_runs)
async def timelines(field: Field) -> None:
    """24 readers of the finest timelines."""
    await _read(field, "trace/timeline?buckets=2000", "trace/timeline?buckets=1999&from=1")


@FAMILY.attack("read", prepare=_long_runs)
async def diffs(field: Field) -> None:
    """24 readers of what differs between two large runs, and what does not."""
    await _read(field, "diff/{other}?all=true", "diff/{other}")


@FAMILY.attack("read", prepare=_long_runs)
async def exports(field: Field) -> None:
    """24 readers of runs as files of every format."""
    await _read(field, *(f"export?format={name}" for name in ("jsonl", "json", "otlp", "perfetto")))


@FAMILY.attack("read", prepare=_large_content)
async def ranges_of_large_content(field: Field) -> None:
    """24 readers of the first byte of as much content as is kept."""
    part = "steps/copy/payload?part=input"
    await _read(field, part, slug="large", headers=[("Range", "bytes=0-0")])


@FAMILY.attack("read", prepare=_long_runs)
async def readings_that_nobody_takes(field: Field) -> None:
    """300 readers of traces, files and outlines, who take none of it."""
    targets = ("trace", "export", "export?format=jsonl", "trace/outline?limit=200000", "trace/stream")
    ids = await _ids(field)
    connections = await field.connect(300)
    for number, connection in enumerate(connections):
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        target = f"{API}/flow-runs/{ids[number % len(ids)]}/{targets[number % len(targets)]}"
        with suppress(OSError):
            await connection.send(head("GET", target, host="x", headers=field.headers()))
    await until_over(field)


@FAMILY.attack("read", prepare=_long_runs)
async def readings_that_are_left(field: Field) -> None:
    """Traces, replays and diffs that are asked for and left at once, 150 a second."""
    ids = await _ids(field)
    targets = ("trace", "trace/stream", f"diff/{ids[0]}", "export")

    async def one(number: int) -> None:
        target = f"{API}/flow-runs/{ids[number % len(ids)]}/{targets[number % len(targets)]}"
        with suppress(OSError):
            async with await Connection.open(field.address, source=SOURCE) as connection:
                await connection.send(head("GET", target, host="x", headers=field.headers()))
                await asyncio.sleep(0.02)

    await field.flood(one, beside=16, per_s=150)
