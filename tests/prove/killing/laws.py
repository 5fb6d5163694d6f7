"""What must be true of the data after every kill, and what at the end, whatever the kills have hit.

The laws of logs, rows and money are those of every proof (`tests/laws`). Here are those of promises: what
callers were told, what was done outside, and how a run must end.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import datetime

import msgspec

from runglass.engine.journal.resume import WORKER_LOST
from runglass.log.events import decode_event, event_type_of
from runglass.log.fold import Address, milliseconds_between
from runglass.log.trace import TERMINAL, StepTrace
from runglass.store.base import Store
from runglass.store.records import RunRecord
from runglass.store.sqlite.database_file import check
from runglass.store.sqlite.store import SqliteStore
from tests.laws.log import Log
from tests.laws.stored import (
    WholeRun,
    broken_as_a_whole,
    broken_by,
    broken_by_itself,
    broken_in_project,
    listed_runs,
    read_run,
    read_whole,
)
from tests.prove.killing.flows import FLOWS, HOLD_MS, NEVER_TIMES, NO_PATH, PLACE, Effect, Outside
from tests.prove.killing.line import Asked, Book
from tests.records import there

RESUME_LIMIT_S = 2.0
LATE_MS = 1500
"""How late a wait may end, on a machine that does other things as well."""
EARLY_MS = 2
"""How early, as times in events are rounded."""


class Laws:
    """What has been seen of one folder of data, kill by kill. `cut_off` counts runs that a kill interrupted,
    `resume_s` are the seconds from `ready` to the first new event of each that went on. Waits may end
    `late_ms` late and `early_ms` early; `waits_ms` are those that went on after a cut: what they took from
    there on, and what was due. `book` has what callers know of the runs that are not `settled`."""

    def __init__(
        self, book: Book, outside: Outside, *, late_ms: float = LATE_MS, early_ms: float = EARLY_MS
    ) -> None:
        self.book = book
        self.logs: dict[str, Log] = {}
        self.records: dict[str, RunRecord] = {}
        self.settled: set[str] = set()
        """Runs of which nothing is to be said any more but what they add up to."""
        self.cut_off = 0
        self.resume_s: list[float] = []
        self.waits_ms: list[tuple[float, float]] = []
        self.outside = outside
        self._late_ms = late_ms
        self._early_ms = early_ms
        self._interrupted: dict[str, int] = {}
        self._slugs: dict[str, str] = {}

    async def after_kill(self, store: Store, ready_at: str = "") -> list[str]:
        """Checks what has been added since the last kill; `ready_at` is when this server was, "" if never."""
        project = there(await store.find_project(*PLACE.split("/")))
        self._slugs = {flow.id: flow.slug for flow in await store.flows(project.id)}
        found: list[str] = []
        for run_id in await listed_runs(store, project):
            log = self.logs.setdefault(run_id, Log(run_id))
            before = len(log.events)
            if log.ended and (record := await store.run(run_id)) is not None and record.head == before:
                continue
            stored = await read_run(store, run_id, after=before)
            run = self.records[run_id] = stored.record
            lies = [lie for seq, event in stored.events for lie in log.add(seq, event)]
            lies += broken_by(log, stored, of_before=self.book.of_before)
            found += [f"{lie}, of flow {self._slugs[run.flow_id]}" for lie in lies]
            if run_id in self._interrupted and ready_at:
                found += self._resumed(run, log, ready_at)
            if run.status == "running":
                log.cut_off()
        going_on = [run for run in self.records.values() if run.status in ("pending", "running")]
        self._interrupted = {run.id: run.head for run in going_on}
        self.cut_off += len(self._interrupted)
        return found + list(self._told())

    async def at_end(self, store: Store) -> list[str]:
        """Checks everything once more, from the first event on, and that all has come to an end."""
        project = there(await store.find_project(*PLACE.split("/")))
        found = list(map(str, await broken_in_project(store, project, self.logs)))
        runs = [run for run in self.records.values() if run.id not in self.settled]
        tags = Counter(run.session_id for run in runs)
        found += [f"{count} runs came of one call, tag {tag}" for tag, count in tags.items() if count > 1]
        for run in runs:
            log, asked = self.logs[run.id], self.book.asked[str(run.session_id)]
            whole = await read_whole(store, run.id)
            result, _ = await store.outcome(run.no)
            lies: list[object] = [*broken_as_a_whole(log, whole, of_before=self.book.of_before)]
            lies += broken_by_itself(log)
            lies += self._ending(whole, None if result is None else msgspec.json.decode(result), log, asked)
            lies += self._effects(run, log)
            found += [f"run {run.id} ({self._slugs[run.flow_id]}): {lie}" for lie in lies]
        for tag, run_id in self.book.refused:
            if run_id is None and tag in tags:
                found.append(f"a run came of a call that was told that nothing was started, tag {tag}")
        for run_id, seq in self.book.ended_at:
            if not (self.logs[run_id].ended and len(self.logs[run_id].events) == seq):
                found.append(f"a reader of run {run_id} was told that event {seq} is its last")
        for effect in self.outside.calls:
            if effect.tag not in tags:
                found.append(f"{effect} was done for a run that does not exist")
        return found

    def _resumed(self, run: RunRecord, log: Log, ready_at: str) -> Iterator[str]:
        before = self._interrupted[run.id]
        if len(log.events) > before:
            first = decode_event(log.events[before]).at
            went_on = datetime.fromisoformat(first) - datetime.fromisoformat(ready_at)
            seconds = max(0.0, went_on.total_seconds())
            self.resume_s.append(seconds)
            if seconds > RESUME_LIMIT_S:
                yield f"run {run.id} ({self._slugs[run.flow_id]}) went on only {seconds:.1f} s after a start"

    def _told(self) -> Iterator[str]:
        """Whatever anybody was sent is in the log, unchanged, where it said that it is."""
        for told, is_same in ((self.book.told, bytes.__eq__), (self.book.walked, _same_event)):
            for run_id, events in told.items():
                log = self.logs[run_id].events if run_id in self.logs else []
                for seq, data in events.items():
                    if seq > len(log) or not is_same(log[seq - 1], data):
                        yield f"event {seq} of run {run_id} was sent as {data!r}, and the log has it not"
                events.clear()
        for asked in self.book.known():
            if asked.run_id not in self.records:
                yield f"run {asked.run_id} of flow {asked.flow} was acknowledged and does not exist"

    def _ending(self, whole: WholeRun, found: object, log: Log, asked: Asked) -> Iterator[str]:
        run = whole.record
        expected = FLOWS[self._slugs[run.flow_id]]
        result = expected.result(asked.tag, asked.n)
        if run.status not in TERMINAL and not (run.status == "paused" and asked.is_left):
            yield f"it is left {run.status} at event {run.head}, {log.last}"
        elif run.status == "cancelled":
            if not asked.may_be_cancelled:
                yield "it was cancelled, and nobody has asked for it"
        elif asked.was_cancelled:
            yield f"its cancelling was acknowledged, and it is {run.status}"
        elif run.status in TERMINAL and run.status != expected.status:
            yield f"it is {run.status}: {log.events[-1]!r}"
        elif run.status == "completed" and found != result:
            yield f"its result is {found}, not {result}"
        if asked.answer is not None and run.status in TERMINAL:
            yield from _answered(asked, run, result)
        never = log.failures[Address("never", None)]
        if never not in (0, NEVER_TIMES) and run.status == "completed":
            yield f"a step failed {never} times and was to be tried {NEVER_TIMES} times"
        yield from self._waits(whole)

    def _waits(self, whole: WholeRun) -> Iterator[str]:
        """A wait keeps its deadline, however many attempts wait for it."""
        rows = [row for row in whole.attempts if row.step_id == "hold"]
        holds = [msgspec.json.decode(row.data, type=StepTrace) for row in rows]
        for step in holds:
            if step.status == "completed":
                due_ms = HOLD_MS - milliseconds_between(there(holds[0].started_at), there(step.started_at))
                took_ms = milliseconds_between(there(step.started_at), there(step.completed_at))
                if step.attempt > 1:
                    self.waits_ms.append((took_ms, max(0, due_ms)))
                if took_ms > max(0, due_ms) + self._late_ms or took_ms + self._early_ms < due_ms:
                    yield f"attempt {step.attempt} of the wait took {took_ms} ms; due were {max(0, due_ms)}"

    def _effects(self, run: RunRecord, log: Log) -> Iterator[str]:
        """What was done outside was done by attempts in the log, once by each, and not after the end."""
        for address, last in log.attempts.items():
            path = NO_PATH if address.loop_path is None else ",".join(map(str, address.loop_path))
            calls = self.outside.calls.get(Effect(str(run.session_id), address.step_id, path), Counter())
            twice = [attempt for attempt, times in calls.items() if times > 1]
            if twice:
                yield f"attempts {twice} of {address} were made more than once"
            if max(calls, default=0) > log.completed.get(address, last):
                yield f"{address} was called in attempts {sorted(calls)}, its log ends with {last}"


async def faults(store: SqliteStore) -> list[str]:
    """What `runglass data check --all` finds wrong."""
    path = store.connections.path
    found = await asyncio.to_thread(check, path, every_run=True, tell=lambda runs, of: None)
    return found.problems


def _answered(asked: Asked, run: RunRecord, result: object) -> Iterator[str]:
    """An answer from after the end: what it says is what the log says."""
    assert asked.answer is not None
    said = asked.answer.get("status", "failed" if asked.status == 500 else None)
    ended = "failed" if run.status == "cancelled" else run.status
    if said != ended or (said == "completed" and asked.answer.get("result") != result):
        yield f"its caller was told {asked.status} {asked.answer}, and it is {run.status}"
    if run.status == "failed" and WORKER_LOST in str(asked.answer):
        yield f"it was given up: {asked.answer}"


def _same_event(stored: bytes, sent: bytes) -> bool:
    """Whether they differ in content at most, which a caller gets in full."""
    if stored == sent:
        return True
    one, other = decode_event(stored), decode_event(sent)
    same = (one.seq, one.at, one.execution_id) == (other.seq, other.at, other.execution_id)
    return same and event_type_of(stored) == event_type_of(sent)
