"""Runs of a million steps in seconds: one of a tenth is executed, and what its batches recorded is repeated.

A copy has the numbers of later batches and times of its own; summary and counts are those of all of it, so
that the store is as if all of it had been executed, but for the checkpoints of a run that goes on. The data
folder must not be open meanwhile.
"""

import asyncio
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import uvloop

from bench import flows, nested
from bench.children import BenchError
from bench.run_page import Finished, finished
from runglass.config.settings import Settings
from runglass.runtime.composition import open_runtime
from runglass.store.records import LARGE_RUN_EVENTS
from runglass.support.clock import iso
from runglass.wire.run_api import RunRequest

EXECUTED_STEPS = 100_000
KEPT_S = 300
POLL_S = 0.05
_NUMBERS = re.compile(rb'("(?:seq|at|startedAt|completedAt|loopIndex|loopPath)":\[?"?)([^",\]}]+)')
_BATCH = re.compile(rb'"stepId":"(\w+)",.*?"loopPath":\[(\d+)([],])')


class _Batches(NamedTuple):
    """What the batches that were executed take: events, positions, numbers of batches, and time."""

    events: int
    positions: int
    number: int
    lasted: timedelta


def finished_run(folder: Path, steps: int, *, most_executed: int = EXECUTED_STEPS) -> Finished:
    """A finished run of about so many steps in an empty folder. Raises BenchError if it does not complete.

    Up to `most_executed` of them are executed, and the rest is a repetition of these.
    """
    times, executed = _times(steps, most_executed)
    run = finished(folder, "nested", nested.request(executed), nested.NESTED, nested.FOLLOWED)
    repeat(folder, run.run_id, times)
    return run


def going_run(folder: Path, steps: int, *, waits: int, most_executed: int = EXECUTED_STEPS) -> str:
    """The id of a run that has recorded so many steps, and has as many waits before it when it is resumed."""
    times, executed = _times(steps, most_executed)
    request = RunRequest(parameters=nested.parameters(executed, waits=waits))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        run_id = runner.run(_leave_going(folder, request))
    repeat(folder, run_id, times)
    return run_id


def _times(steps: int, most_executed: int) -> tuple[int, int]:
    times = max(1, steps // most_executed)
    return times, steps // times


async def _leave_going(folder: Path, request: RunRequest) -> str:
    async with open_runtime(Settings(data=folder, synchronous="NORMAL", stop_grace_s=0)) as runtime:
        project = await runtime.store.ensure_project(flows.ORG, flows.PROJECT)
        submitted = await runtime.submit(project, "followed", request, version=None, trigger_type="api")
        run = await runtime.store.run(submitted.run.id)
        while run is not None and await runtime.store.newest_position(run.no, "wait") is None:
            if run.ended:
                raise BenchError(f"the run {run.id!r} that was to be followed ended before its waits")
            await asyncio.sleep(POLL_S)
            run = await runtime.store.run(submitted.run.id)
        return submitted.run.id


def forget_outline(folder: Path) -> None:
    """Lets the outlines that are kept be due again."""
    with closing(sqlite3.connect(Settings(data=folder).database)) as db, db:
        db.execute("INSERT OR IGNORE INTO due_outline SELECT DISTINCT run_no FROM kept_outline")
        db.execute("DELETE FROM kept_outline")


def wait_for_outline(folder: Path) -> None:
    """Returns once no outline is due any more. Raises BenchError after some minutes."""
    until_s = time.monotonic() + KEPT_S
    with closing(sqlite3.connect(Settings(data=folder).database)) as db:
        while db.execute("SELECT 1 FROM due_outline").fetchone():
            if time.monotonic() > until_s:
                raise BenchError(f"the outline of the run was not kept within {KEPT_S} s")
            time.sleep(POLL_S)


def repeat(folder: Path, run_id: str, times: int) -> None:
    """Makes a run of `nested` so many times as long."""
    if times == 1:
        return
    with closing(sqlite3.connect(Settings(data=folder).database)) as db, db:
        (run_no,) = db.execute("SELECT no FROM run WHERE id = ?", (run_id,)).fetchone()
        _Repetition(db, run_no, times).write()


class _Repetition:
    """One run that is repeated: first what came before its batches, then these, then what came after them."""

    def __init__(self, db: sqlite3.Connection, run_no: int, times: int) -> None:
        self._db = db
        self._no = run_no
        self._times = times
        self._events: list[tuple[int, bytes]] = db.execute(
            "SELECT seq, data FROM event WHERE run_no = ? ORDER BY seq", (run_no,)
        ).fetchall()
        found = [(seq, data, batch) for seq, data in self._events if (batch := _batch_of(data)) is not None]
        (self._first, began, _), (self._last, ended, _) = found[0], found[-1]
        marks = ", ".join("?" * len(nested.OF_BATCH))
        (positions,) = db.execute(
            f"SELECT max(position) FROM step WHERE run_no = ? AND step_id IN ({marks})",
            (run_no, *nested.OF_BATCH),
        ).fetchone()
        self._batches = _Batches(
            events=self._last - self._first + 1,
            positions=positions,
            number=1 + max(batch for _, _, batch in found),
            lasted=_at(ended) - _at(began) + timedelta(milliseconds=1),
        )

    def write(self) -> None:
        before = self._size()
        self._db.execute("DELETE FROM event WHERE run_no = ?", (self._no,))
        self._db.executemany(
            f"INSERT INTO event (run_no, seq, data) VALUES ({self._no}, ?, ?)", self._all_events()
        )
        for table in ("step", "step_attempt"):
            key = "run_no, position, attempt, step_id, loop_path, status, data"
            rows = self._db.execute(f"SELECT {key} FROM {table} WHERE run_no = ?", (self._no,)).fetchall()
            self._db.execute(f"DELETE FROM {table} WHERE run_no = ?", (self._no,))
            self._db.executemany(f"INSERT INTO {table} ({key}) VALUES (?, ?, ?, ?, ?, ?, ?)", self._all(rows))
        self._write_run(self._size() - before)

    def _all_events(self) -> Iterator[tuple[int, bytes]]:
        """Times before the last copy are earlier than they were, so that those of the end stay."""
        for seq, data in self._events[: self._first - 1]:
            yield seq, self._of_outer_loop(self._moved(data, 0))
        for number in range(self._times):
            for seq, data in self._events[self._first - 1 : self._last]:
                yield seq + number * self._batches.events, self._moved(data, number)
        for seq, data in self._events[self._last :]:
            moved = _with_numbers(data, lambda key, text: self._later(text) if key == b"seq" else text)
            yield seq + (self._times - 1) * self._batches.events, self._of_outer_loop(moved)

    def _all(self, rows: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        for number in range(self._times):
            for run_no, position, attempt, step_id, loop_path, status, data in rows:
                if step_id in nested.OF_BATCH:
                    batch, *inner = loop_path.split(",")
                    path = ",".join([str(int(batch) + number * self._batches.number), *inner])
                    place = position + number * self._batches.positions
                    yield run_no, place, attempt, step_id, path, status, self._moved(data, number)
        for run_no, position, *more in rows:
            if more[1] not in nested.OF_BATCH:
                yield run_no, position + (self._times - 1) * self._batches.positions, *more

    def _moved(self, data: bytes, number: int) -> bytes:
        """An event or step as it is in one of the copies."""
        later, back = number * self._batches.number, (self._times - 1 - number) * self._batches.lasted
        found = _BATCH.search(data)
        is_of_batch = found is not None and found[3] == b"]"

        def change(key: bytes, text: bytes) -> bytes:
            match key:
                case b"seq":
                    return b"%d" % (int(text) + number * self._batches.events)
                case b"loopPath":
                    batch, comma, inner = text.partition(b",")
                    return b"%d" % (int(batch) + later) + comma + inner
                case b"loopIndex":
                    return b"%d" % (int(text) + later) if is_of_batch else text
            return _earlier(text, back)

        return _with_numbers(data, change)

    def _later(self, seq: bytes) -> bytes:
        return b"%d" % (int(seq) + (self._times - 1) * self._batches.events)

    def _of_outer_loop(self, data: bytes) -> bytes:
        """An event of the loop over batches or of the run says how many there are, or what they add up to."""
        event = msgspec.json.decode(data)
        if event.get("stepId") == nested.OUTER and "iterations" in event:
            event["iterations"] *= self._times
        if "summary" in event:
            event["summary"] = self._added_up(event["summary"])
        return msgspec.json.encode(event)

    def _added_up(self, totals: dict[str, Any]) -> dict[str, Any]:
        """The totals of the run, in which all but the steps after the batches counts so many times."""
        after = sum(b'"eventType":"step_completed"' in data for _, data in self._events[self._last :])
        made: dict[str, Any] = _multiplied(totals, self._times)
        made["completed"] -= after * (self._times - 1)
        return made

    def _write_run(self, added_bytes: int) -> None:
        db, no = self._db, self._no
        (text, status) = db.execute("SELECT summary, status FROM run WHERE no = ?", (no,)).fetchone()
        summary = msgspec.json.decode(text)
        began = datetime.fromisoformat(summary["startedAt"]) - (self._times - 1) * self._batches.lasted
        summary["startedAt"] = iso(began)
        summary["totals"] = self._added_up(summary["totals"])
        summary["expectedSteps"] += (self._times - 1) * self._batches.number * nested.BATCH_STEPS
        if "completedAt" in summary:
            lasted = datetime.fromisoformat(summary["completedAt"]) - began
            summary["durationMs"] = lasted // timedelta(milliseconds=1)
        # Of a run that goes on its summary alone says it.
        tokens = summary["totals"]["tokens"]["total"] if "completedAt" in summary else None
        head = self._events[-1][0] + (self._times - 1) * self._batches.events
        db.execute(
            "UPDATE run SET summary = ?, head = ?, log_bytes = log_bytes + ?, duration_ms = ?, tokens = ?"
            " WHERE no = ?",
            (msgspec.json.encode(summary), head, added_bytes, summary.get("durationMs"), tokens, no),
        )
        db.execute("UPDATE project SET data_bytes = data_bytes + ?", (added_bytes,))
        if status == "completed" and head >= LARGE_RUN_EVENTS:
            db.execute("INSERT OR IGNORE INTO due_outline (run_no) VALUES (?)", (no,))

    def _size(self) -> int:
        tables = ("event", "step", "step_attempt")
        sizes = [
            f"(SELECT coalesce(sum(length(data)), 0) FROM {table} WHERE run_no = ?1)" for table in tables
        ]
        (size,) = self._db.execute(f"SELECT {' + '.join(sizes)}", (self._no,)).fetchone()
        return int(size)


def _batch_of(data: bytes) -> int | None:
    """The number of the batch that an event is of."""
    found = _BATCH.search(data)
    return int(found[2]) if found is not None and found[1].decode() in nested.OF_BATCH else None


def _with_numbers(data: bytes, change: Callable[[bytes, bytes], bytes]) -> bytes:
    """The JSON with other numbers and times: `change` gets the name of the field and what it has."""
    parts = _NUMBERS.split(data)
    for at in range(2, len(parts), 3):
        parts[at] = change(parts[at - 1].strip(b'":['), parts[at])
    return b"".join(parts)


@cache
def _earlier(text: bytes, by: timedelta) -> bytes:
    return iso(datetime.fromisoformat(text.decode()) - by).encode()


def _at(event: bytes) -> datetime:
    return datetime.fromisoformat(msgspec.json.decode(event)["at"])


def _multiplied(value: Any, times: int) -> Any:
    if isinstance(value, dict):
        return {name: _multiplied(each, times) for name, each in value.items()}
    return value * times if isinstance(value, int) else value
