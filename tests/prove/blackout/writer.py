"""The process whose power is cut: it fills a store and says on a second file what it was told.

Run under `syscalls.record`, as `python -m tests.prove.blackout.writer` with the settings as one JSON object.
A line `does` goes out before each write to the store and a line `done` when the store has acknowledged it;
both are system calls, and so have their places among those of the database. It knows nothing of crashes.
"""

import asyncio
import itertools
import os
import random
import sys
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import msgspec
from msgspec.structs import replace

from runglass.bus.base import Bus
from runglass.engine.journal.run_writer import RunWriter
from runglass.log.events import (
    FlowCompleted,
    FlowFailed,
    KnownEvent,
    RunStarted,
    StepCompleted,
    StepError,
    StepModelCall,
    StepModelReserved,
    StepRetrying,
    StepStarted,
)
from runglass.log.fold import RunFold
from runglass.log.trace import ModelCall, ModelReservation, RunSummary
from runglass.store.base import Store
from runglass.store.records import Append, Checkpoint, IdempotencyKey
from runglass.store.run_logs import RunLog
from runglass.store.sqlite.database_file import upgrade
from runglass.store.sqlite.store import SqliteStore
from runglass.support.clock import SystemClock
from runglass.support.lazy_json import encoded
from tests.records import new_run

T = TypeVar("T")

PROJECT = ("acme", "demo")
BEFORE = ("acme", "before")
"""A project that a database from an older version already has."""
SLUG = "flow"
WORKERS = 4
ERROR = {"code": "CODE_ERROR", "message": "no"}
MOST, COST = "0.004", "0.0013"
"""What a request to a model may cost in US dollars, and what it does."""
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


def checkpoint_of(head: int) -> str:
    return f"s{head}"


class _Noted:
    """The log of runs in a store, of which each append is noted."""

    def __init__(self, writer: "_Writer", run_id: str) -> None:
        self._writer = writer
        self._run_id = run_id

    async def append(self, batch: Append) -> None:
        name = append_name(self._run_id, batch.head + len(batch.events))
        await self._writer.told(name, self._writer.store.append(batch))


class _Writer:
    def __init__(self, store: Store, notes: int, settings: Settings, session: int) -> None:
        self.store = store
        self._notes = notes
        self._session = session
        self._random = random.Random(f"{settings.seed}/{session}")
        self._left = settings.appends // 2
        self._runs = 0

    async def fill(self) -> None:
        project = await self.told("project", self.store.ensure_project(*PROJECT))
        draft = self.store.put_draft(project.id, SLUG, name=None, capture=None, source=b"{}")
        flow = await self.told("flow", draft)
        async with asyncio.TaskGroup() as workers:
            for _ in range(WORKERS):
                workers.create_task(self._work(project.id, flow.id))

    async def _work(self, project_id: int, flow_id: str) -> None:
        while self._left > 0:
            self._runs += 1
            run_id = f"run-{self._session}-{self._runs}"
            await self._run(run_id, project_id, flow_id)

    async def _run(self, run_id: str, project_id: int, flow_id: str) -> None:
        fold = RunFold(RunSummary(id=run_id, flow_id=flow_id, status="pending", trigger_type="api"))
        new = new_run(
            project_id,
            flow_id,
            id=run_id,
            request=self._object(),
            summary=msgspec.json.encode(fold.summary),
            call=IdempotencyKey(run_id, b"digest"),
        )
        record = await self.told(append_name(run_id, 0), self.store.create_run(new))
        log = cast(RunLog, _Noted(self, run_id))
        writer = RunWriter(log, Bus(), record, fold, SystemClock())
        events = self._events(run_id, flow_id)
        while batch := list(itertools.islice(events, self._random.randint(2, 6))):
            for event in batch:
                if isinstance(event, FlowCompleted):
                    totals = encoded(msgspec.json.encode(fold.summary.totals))
                    event = replace(event, summary=totals)
                writer.record(event)
            writer.add_checkpoint(Checkpoint(checkpoint_of(writer.head), "", self._object()))
            await writer.commit()
            self._left -= 1
        answer = self.store.answer_call(project_id, run_id, status=200, answer=b"{}")
        await self.told(f"answer {run_id}", answer)

    def _events(self, run: str, flow_id: str) -> Iterator[KnownEvent]:
        """The events of a run of three steps; about every fourth step needs another attempt, or fails."""
        yield RunStarted(
            execution_id=run, run_id=run, flow_id=flow_id, step_count=3, trigger_type="api", version=0
        )
        for index, step in enumerate(("s0", "s1", "s2")):
            of: dict[str, Any] = {"execution_id": run, "step_id": step, "attempt": 1}
            yield from self._asking(of, index)
            if self._random.random() < 0.25:
                yield StepRetrying(**of, error=ERROR, next_attempt=2, delay_ms=0, cost_usd=COST)
                of["attempt"] = 2
                yield from self._asking(of, index)
            if self._random.random() < 0.1:
                yield StepError(**of, step_index=index, error=ERROR, cost_usd=COST)
                yield FlowFailed(execution_id=run, run_id=run, error=ERROR, step_id=step)
                return
            output = {"text": self._text()}
            yield StepCompleted(**of, step_index=index, output=output, duration_ms=1, cost_usd=COST)
        yield FlowCompleted(execution_id=run, run_id=run, result={"n": 1})

    def _asking(self, of: dict[str, Any], index: int) -> Iterator[KnownEvent]:
        """An attempt begins, and asks a model: what that may cost is held, then charged."""
        yield StepStarted(**of, step_index=index)
        yield StepModelReserved(**of, reservation=ModelReservation(number=1, model="echo", usd=MOST))
        yield StepModelCall(**of, model_call=ModelCall(number=1, model="echo", cost_usd=COST))

    def _object(self) -> bytes:
        return msgspec.json.encode({"text": self._text()})

    def _text(self) -> str:
        return "x" * self._random.choice(SIZES)

    async def told(self, name: str, write: Awaitable[T]) -> T:
        self._note(Note(does=name))
        told = await write
        self._note(Note(done=name))
        return told

    def _note(self, note: Note) -> None:
        os.write(self._notes, msgspec.json.encode(note) + b"\n")


async def _main(settings: Settings) -> None:
    notes = os.open(settings.notes, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    checkpoints = f"PRAGMA wal_autocheckpoint = {settings.checkpoint_pages}"
    for session in (1, 2):
        upgrade(Path(settings.database), with_copy=False)
        store = SqliteStore(Path(settings.database), synchronous=settings.synchronous)
        await store.__aenter__()
        await store.connections.write(lambda db: db.execute(checkpoints).fetchall())
        await _Writer(store, notes, settings, session).fill()
        if session == 1:
            await store.__aexit__(None, None, None)
    # Without a word to the store: what it has not done by now, it has not done.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(_main(msgspec.json.decode(sys.argv[1], type=Settings)))
