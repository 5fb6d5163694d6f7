"""The process whose power is cut: an engine fills a store, which says on a second file what it was told.

Run under `disk.record`, as `python -m tests.prove.blackout.writer` with the settings as one JSON object.
A line `does` goes out before each write to the store and a line `done` when the store has acknowledged it;
both are system calls, and so have their places among those of the database. It knows nothing of crashes.
"""

import asyncio
import os
import random
import sys
from collections.abc import Awaitable
from decimal import Decimal
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
from msgspec.structs import replace

from runglass.store.records import Append, IdempotencyKey, NewRun, RunRecord
from runglass.store.sqlite.database_file import upgrade
from runglass.store.sqlite.store import SqliteStore
from tests.unit.engine.conftest import EngineHarness, open_harness
from tests.unit.engine.fake_models import DicedModels

T = TypeVar("T")

PROJECT = ("acme", "demo")
BEFORE = ("acme", "before")
"""A project that a database from an older version already has."""
SLUG = "flow"
"""A flow of which there is a draft and no run."""
FLOW = """
- {id: copy, type: passthrough}
- {id: ask, type: llm, model: 'local:tiny', prompt: Hi, retry: {max_attempts: 2, initial_delay_ms: 0}}
- {id: last, type: passthrough, input: {text: "{{ initial.text }}"}}
"""
WORKERS = 4
SIZES = (10, 300, 3_000, 20_000)
"""Of requests and outputs, in bytes: inside of a page, most of one, and several."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`appends` are spread over two openings of the store; the second is not closed."""

    database: str
    notes: str
    synchronous: Literal["FULL", "NORMAL"]
    checkpoint_pages: int
    appends: int
    seed: int


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the second file."""

    does: str = ""
    done: str = ""


def append_name(run_id: str, head: int) -> str:
    """What an append is called in notes; head 0 is the creation of the run."""
    return f"{run_id}@{head}"


class NotedStore(SqliteStore):
    """A store that notes the writes of runs; each run comes of a call."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(Path(settings.database), synchronous=settings.synchronous)
        self.appends = 0
        self._notes = os.open(settings.notes, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self._ids: dict[int, str] = {}

    async def create_run(self, run: NewRun) -> RunRecord:
        called = replace(run, call=IdempotencyKey(run.id, b"digest"))
        record = await self.noted(append_name(run.id, 0), super().create_run(called))
        self._ids[record.no] = run.id
        return record

    async def append(self, batch: Append) -> None:
        self.appends += 1
        name = append_name(self._ids[batch.run_no], batch.head + len(batch.events))
        await self.noted(name, super().append(batch))

    async def noted(self, name: str, write: Awaitable[T]) -> T:
        self._note(Note(does=name))
        told = await write
        self._note(Note(done=name))
        return told

    def _note(self, note: Note) -> None:
        os.write(self._notes, msgspec.json.encode(note) + b"\n")


async def _fill(store: NotedStore, house: EngineHarness, chance: random.Random, appends: int) -> None:
    project = await store.noted("project", store.ensure_project(*PROJECT))
    await store.set_budget(project.id, Decimal(1_000_000))
    await store.noted("flow", store.put_draft(project.id, SLUG, name=None, capture=None, source=b"{}"))

    async def work() -> None:
        while store.appends < appends:
            started = await house.start(FLOW, {"text": "x" * chance.choice(SIZES)})
            await started.outcome()
            answer = store.answer_call(project.id, started.id, status=200, answer=b"{}")
            await store.noted(f"answer {started.id}", answer)

    async with asyncio.TaskGroup() as workers:
        for _ in range(WORKERS):
            workers.create_task(work())


async def _main(settings: Settings) -> None:
    checkpoints = f"PRAGMA wal_autocheckpoint = {settings.checkpoint_pages}"
    for session in (1, 2):
        upgrade(Path(settings.database), with_copy=False)
        store, chance = NotedStore(settings), random.Random(f"{settings.seed}/{session}")
        async with open_harness(store, models=DicedModels(chance)) as house:
            await store.connections.write(lambda db: db.execute(checkpoints).fetchall())
            await _fill(store, house, chance, settings.appends // 2)
            if session == 2:
                # Without a word to the store: what it has not done by now, it has not done.
                os._exit(0)


if __name__ == "__main__":
    asyncio.run(_main(msgspec.json.decode(sys.argv[1], type=Settings)))
