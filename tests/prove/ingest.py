"""`prove ingest`: what is acknowledged of other programs' spans is there, once, whatever comes and breaks.

Many are sent while the server is killed again and again, on each kind of store. That they may come in any
order, and what is made to do harm, is in `tests/unit/recording`.
"""

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import httpx2
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from runglass.config.settings import Settings
from runglass.log.events import RunStarted, StepRecorded, decode_event
from runglass.runtime.composition import check_store, open_store, upgrade_store
from runglass.store.base import Store, summary_of
from runglass.store.records import Project
from tests.laws.law import require
from tests.laws.stored import ALL, listed_runs
from tests.ports import free_port
from tests.postgres_server import postgres_database, stop_postgres
from tests.prove.furnish import furnish
from tests.prove.killing.server import KilledServer
from tests.records import there
from tests.unit.recording.test_otlp import pair, span, traces

BEGAN_NS = 1_790_000_000_000_000_000
SENTENCE = "The quick brown fox jumps over the lazy dog, and the dog does not mind. "
ATTRIBUTES = {
    "gen_ai.operation.name": "execute_tool",
    "gen_ai.tool.name": "look up",
    "input.value": SENTENCE,
    "output.value": SENTENCE,
}


class Sent(NamedTuple):
    """A span by the numbers of its trace and of itself.

    It is below the one of half its number: a tree that is as deep as it is wide.
    """

    trace: int
    number: int


def name_of(trace_id: str, span_id: str) -> str:
    """What tells a span from all others: each trace has spans with the same ids."""
    return f"{trace_id}/{span_id}"


def _span(trace: int, number: int) -> Span:
    """One that has begun at its number, in milliseconds, and ended."""
    began_ns = BEGAN_NS + number * 1_000_000
    return span(
        span_id=number.to_bytes(8),
        trace_id=trace.to_bytes(16),
        parent_span_id=(number // 2).to_bytes(8) if number > 1 else b"",
        kind=1,
        start_time_unix_nano=began_ns,
        end_time_unix_nano=began_ns + 900_000,
        attributes=[pair(key, string_value=value) for key, value in ATTRIBUTES.items()],
    )


SENDERS = 6
BATCH = 400
SIZES = (1, 3, 12, 50, 400, 3000)
REPEATED = 0.05
PAUSE_S = 0.05
TIMEOUT_S = 60.0


class Book:
    """What is sent: of each trace how many spans, and how many requests were acknowledged."""

    def __init__(self, spans: int, seed: int) -> None:
        self.sizes: dict[int, int] = {}
        self.requests = self.repeats = self.failures = 0
        draw = random.Random(f"ingest {seed}")
        left = spans
        while left:
            size = min(draw.choice(SIZES), left)
            self.sizes[len(self.sizes) + 1] = size
            left -= size
        self._draw = draw
        self._traces = iter(self.sizes)

    def take(self) -> list[Sent]:
        """The spans of some traces that nobody has sent yet, in any order; none when there are no more."""
        spans: list[Sent] = []
        while len(spans) < SIZES[-1] and (trace := next(self._traces, None)) is not None:
            spans += (Sent(trace, number) for number in range(1, self.sizes[trace] + 1))
        self._draw.shuffle(spans)
        return spans

    def is_repeated(self) -> bool:
        return self._draw.random() < REPEATED


async def send_all(http: httpx2.AsyncClient, url: str, book: Book) -> None:
    """Returns when all of the book is acknowledged. Raises AssertionError where a span is rejected."""
    async with asyncio.TaskGroup() as senders:
        for _ in range(SENDERS):
            senders.create_task(_send(http, url, book))


async def _send(http: httpx2.AsyncClient, url: str, book: Book) -> None:
    while spans := book.take():
        for first in range(0, len(spans), BATCH):
            some = traces(*(_span(*each) for each in spans[first : first + BATCH]))
            data = bytes(some.SerializeToString())
            await post(http, url, data, book)
            if book.is_repeated():
                book.repeats += 1
                await post(http, url, data, book)


async def post(http: httpx2.AsyncClient, url: str, data: bytes, book: Book) -> None:
    while True:
        try:
            answer = await http.post(
                f"{url}/v1/traces", content=data, headers={"Content-Type": "application/x-protobuf"}
            )
        except httpx2.HTTPError:
            book.failures += 1
        else:
            if answer.status_code == 200:
                assert not answer.content, f"spans were rejected: {answer.content!r}"
                book.requests += 1
                return
            assert answer.status_code == 503, f"{answer.status_code}: {answer.text[:500]}"
            book.failures += 1
        await asyncio.sleep(PAUSE_S)


async def faults(store: Store, project: Project, sizes: Mapping[int, int]) -> list[str]:
    """What is missing of these traces, was stored twice, or was taken for a run that somebody executes."""
    found: list[str] = []
    stored: Counter[str] = Counter()
    trace_of: dict[str, str] = {}
    continued: dict[str, str | None] = {}
    for run_id in await listed_runs(store, project):
        run = there(await store.run(run_id))
        recording = there(summary_of(run).recording)
        trace_of[run_id] = recording.trace_id
        if run.claims or run.fence != 1:
            found.append(f"run {run_id} was claimed")
        for _, data in await store.events(run.no, after=0, limit_bytes=ALL):
            event = decode_event(data)
            if isinstance(event, RunStarted):
                continued[run_id] = event.continues
            elif isinstance(event, StepRecorded):
                stored[name_of(recording.trace_id, event.span.span_id)] += 1
    for run_id, first in continued.items():
        # A long trace goes on in another run.
        if first is not None and trace_of.get(first) != trace_of[run_id]:
            found.append(f"run {run_id} continues {first}, which is not of its trace")
    begun = Counter(trace_of[run_id] for run_id, first in continued.items() if first is None)
    sent = {
        name_of(f"{trace:032x}", f"{number:016x}")
        for trace, size in sizes.items()
        for number in range(1, size + 1)
    }
    for what, odd in (
        ("spans are missing", sent - stored.keys()),
        ("spans were never sent", stored.keys() - sent),
        ("spans were stored more than once", {each for each, times in stored.items() if times > 1}),
        ("traces stand in several runs", {each for each, times in begun.items() if times > 1}),
    ):
        if odd:
            found.append(f"{len(odd)} {what}, such as {min(odd)}")
    return found


PLACE = "acme/prove"
LIFE_S = (0.3, 8.0)
"""How long a server lives before it is killed, once it accepts."""


async def ingest(spans: int = 1_000_000, kills: int = 40, seed: int = 0) -> list[str]:
    """So many spans on each kind of store, with so many kills. Raises AssertionError."""
    told: list[str] = []
    for kind in ("SQLite", "PostgreSQL"):
        with _settings(kind) as settings:
            async with KilledServer.made(settings) as server:
                told += [f"{kind}: {line}" for line in await _prove(server, spans, kills, seed)]
    return told


async def _prove(server: KilledServer, spans: int, kills: int, seed: int) -> list[str]:
    settings = server.template.settings
    url = f"http://127.0.0.1:{settings.port}"
    await upgrade_store(settings, with_copy=False)
    async with open_store(settings) as store:
        key = await furnish(store, PLACE, role="run")
        project = await store.ensure_project(*PLACE.split("/"))
    book, began_s = Book(spans, seed), monotonic()
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT_S) as http:
        sending = asyncio.create_task(send_all(http, url, book))
        killed = await _kill(server, sending, kills, random.Random(f"kills {seed}"))
        await sending
        took_s = monotonic() - began_s
        if server.gone.is_set():
            await server.start()
            await server.ready()
        server.kill()
        await server.gone.wait()
    async with open_store(settings) as store:
        require(await faults(store, project, book.sizes), "after the last kill")
    checked = await asyncio.to_thread(check_store, settings, every_run=True, tell=lambda *_: None)
    require(checked.problems, "what is stored beside the logs")
    return [
        f"{spans:,} spans of {len(book.sizes):,} traces in {took_s:.0f} s, {killed} kills,"
        f" {book.requests:,} requests acknowledged, of which {book.repeats:,} were repeats,"
        f" {book.failures:,} failed: nothing is missing, nothing is there twice, no run was claimed;"
        f" what is stored beside the logs of {checked.folded:,} runs follows from them"
    ]


async def _kill(server: KilledServer, sending: "asyncio.Task[None]", kills: int, draw: random.Random) -> int:
    """Starts and kills the server, until so many kills or until all is sent; the last one lives."""
    killed = 0
    while not sending.done():
        await server.start()
        await server.ready()
        limit_s = draw.uniform(*LIFE_S) if killed < kills else None
        done, _ = await asyncio.wait({sending}, timeout=limit_s)
        if not done:
            server.kill()
            await server.gone.wait()
            killed += 1
    return killed


@contextmanager
def _settings(kind: str) -> Iterator[Settings]:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="runglass-ingest-"))
        store = None
        if kind == "PostgreSQL":
            stack.callback(stop_postgres)
            store = stack.enter_context(postgres_database())
        yield Settings(
            data=Path(folder), port=free_port(), store=store, log_level="warning", stop_grace_s=0.1
        )
