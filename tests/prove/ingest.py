"""`prove ingest`: what is acknowledged of other programs' spans is there, once, whatever comes and breaks.

Every permutation of seven spans; spans that are made to do harm; and many that are sent while the server is
killed again and again, on each kind of store.
"""

import asyncio
import random
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import httpx2

from runglass.config.settings import Settings
from runglass.runtime.composition import check_store, open_store, upgrade_store
from runglass.wire.admin_api import make_key
from tests.postgres_server import PostgresServer
from tests.prove.ingesting.hostile import hostile_faults
from tests.prove.ingesting.permutations import permutations_told
from tests.prove.ingesting.reading import faults
from tests.prove.ingesting.sending import TIMEOUT_S, Book, send_all
from tests.prove.killing.server import KilledServer, free_port

PLACE = "acme", "prove"
LIFE_S = (0.3, 8.0)
"""How long a server lives before it is killed, once it accepts."""
MOST_TOLD = 20


async def ingest(spans: int = 1_000_000, kills: int = 40, seed: int = 0) -> list[str]:
    """So many spans on each kind of store, with so many kills. Raises AssertionError."""
    told = [permutations_told()]
    for kind in ("SQLite", "PostgreSQL"):
        async with _settings(kind) as settings, KilledServer.made(settings) as server:
            told += [f"{kind}: {line}" for line in await _prove(server, spans, kills, seed)]
    return told


async def _prove(server: KilledServer, spans: int, kills: int, seed: int) -> list[str]:
    settings = server.settings
    url = f"http://127.0.0.1:{settings.port}"
    new, other = make_key(), make_key()
    await upgrade_store(settings, with_copy=False)
    async with open_store(settings) as store:
        project = await store.ensure_project(*PLACE)
        await store.add_key(project.id, "run", new.digest, new.hint)
        await store.add_key(
            (await store.ensure_project(PLACE[0], "other")).id, "run", other.digest, other.hint
        )
    book, began_s = Book(spans, seed), monotonic()
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {new.key}"}, timeout=TIMEOUT_S) as http:
        sending = asyncio.create_task(send_all(http, url, book))
        killed = await _kill(server, sending, kills, random.Random(f"kills {seed}"))
        await sending
        took_s = monotonic() - began_s
        if server.gone.is_set():
            await server.start()
            await server.ready()
        harm = await hostile_faults(http, url, other.key, settings)
        server.kill()
        await server.gone.wait()
    async with open_store(settings) as store:
        _judge(await faults(store, project, book.sizes), "after the last kill")
        _judge(harm, "of what is made to do harm")
    checked = await asyncio.to_thread(check_store, settings, every_run=True, tell=lambda *_: None)
    _judge(checked.problems, "what is stored beside the logs")
    return [
        f"{spans:,} spans of {len(book.sizes):,} traces in {took_s:.0f} s, {killed} kills,"
        f" {book.requests:,} requests acknowledged, of which {book.repeats:,} were repeats,"
        f" {book.failures:,} failed: nothing is missing, nothing is there twice, no run was claimed;"
        f" what is stored beside the logs of {checked.folded:,} runs follows from them",
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


def _judge(lies: list[str], place: str) -> None:
    assert not lies, "\n".join([f"{place}: {len(lies)} lies", *lies[:MOST_TOLD]])


@asynccontextmanager
async def _settings(kind: str) -> AsyncIterator[Settings]:
    """A server's settings on new data of its own."""
    folder = Path(tempfile.mkdtemp(prefix="runglass-ingest-"))
    postgres = PostgresServer() if kind == "PostgreSQL" else None
    try:
        yield Settings(
            data=folder,
            port=free_port(),
            store=None if postgres is None else await postgres.database_of(folder),
            log_level="warning",
            stop_grace_s=0.1,
        )
    finally:
        if postgres is not None:
            postgres.stop()
        shutil.rmtree(folder)
