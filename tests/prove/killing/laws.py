"""What must be true of the data after every kill, and what at the end, whatever the kills have hit."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

import msgspec

from runglass.log.events import decode_event, event_type_of
from runglass.log.fold import Address, milliseconds_between
from runglass.log.trace import TERMINAL, StepTrace
from tests.prove.killing.book import Asked, Book
from tests.prove.killing.flows import FLOWS, HOLD_MS, NEVER_TIMES
from tests.prove.killing.log import LOST, Log
from tests.prove.killing.outside import NO_PATH, Effect, Outside
from tests.prove.killing.snapshot import Data, RunRow

RESUME_LIMIT_S = 2.0
LATE_MS = 1500
"""How late a wait may end, on a machine that does other things as well."""
EARLY_MS = 2
"""How early, as times in events are rounded."""


class Laws:
    """What has been seen of one folder of data, kill by kill. `cut_off` counts runs that a kill interrupted,
    `resume_s` are the seconds from `ready` to the first new event of each that went on. Waits may end
    `late_ms` late and `early_ms` early; `waits_ms` are those that went on after a cut: what they took from
    there on, and what was due. A program `of_before` that goes on with a run drops from its row what it does
    not know."""

    def __init__(
        self,
        book: Book,
        outside: Outside,
        *,
        late_ms: float = LATE_MS,
        early_ms: float = EARLY_MS,
        of_before: bool = False,
    ) -> None:
        self.logs: dict[str, Log] = {}
        self.cut_off = 0
        self.resume_s: list[float] = []
        self.waits_ms: list[tuple[float, float]] = []
        self._book = book
        self._outside = outside
        self._late_ms = late_ms
        self._early_ms = early_ms
        self._of_before = of_before
        self._interrupted: dict[str, int] = {}

    def after_kill(self, data: Data, ready_at: str) -> Iterator[str]:
        """Checks what has been added since the last kill; `ready_at` is when this server was, "" if never."""
        runs = data.runs()
        for run in runs:
            log = self.logs.setdefault(run.id, Log(run.id))
            if log.ended and len(log.events) == run.head:
                continue
            before = len(log.events)
            for seq, event in data.events(run, after=before):
                yield from (f"run {run.id} ({run.flow}): {lie}" for lie in log.add(seq, event))
            yield from self._agreement(data, run, log)
            if run.id in self._interrupted and ready_at:
                yield from self._resumed(run, log, ready_at)
            if run.status == "running":
                log.cut_off()
        self._interrupted = {run.id: run.head for run in runs if run.status in ("pending", "running")}
        self.cut_off += len(self._interrupted)
        yield from self._told(runs)

    def at_end(self, data: Data) -> Iterator[str]:
        """Checks everything once more, from the first event on, and that all has come to an end."""
        runs = data.runs()
        tags = Counter(run.tag for run in runs)
        yield from (f"{count} runs came of one call, tag {tag}" for tag, count in tags.items() if count > 1)
        for run in runs:
            log, asked = self.logs[run.id], self._book.asked[run.tag]
            if [event for _, event in data.events(run)] != log.events:
                yield f"the log of run {run.id} was changed after it had been read"
            yield from (f"run {run.id} ({run.flow}): {lie}" for lie in self._ending(data, run, log, asked))
            yield from (f"run {run.id} ({run.flow}): {lie}" for lie in self._effects(run, log))
        ids = {run.id for run in runs}
        for asked in self._book.asked.values():
            if asked.run_id is not None and asked.run_id not in ids:
                yield f"run {asked.run_id} of flow {asked.flow}, which its caller knows, does not exist"
        for tag, run_id in self._book.refused:
            if run_id is None and tag in tags:
                yield f"a run came of a call that was told that nothing was started, tag {tag}"
        for run_id, seq in self._book.ended_at:
            if not (self.logs[run_id].ended and len(self.logs[run_id].events) == seq):
                yield f"a reader of run {run_id} was told that event {seq} is its last"
        for effect in self._outside.calls:
            if effect.tag not in tags:
                yield f"{effect} was done for a run that does not exist"
        yield from (f"the {what} of run {run_id} was kept after its end" for what, run_id in data.leftovers())
        yield from (f"the database is corrupt: {fault}" for fault in data.faults())

    def _agreement(self, data: Data, run: RunRow, log: Log) -> Iterator[str]:
        """The stored trace is the fold of the stored events, in the same transaction, byte for byte."""
        if len(log.events) != run.head:
            yield f"run {run.id}: its row is at event {run.head}, its log at {len(log.events)}"
        if not log.events:
            return
        folded = log.fold.trace()
        expected = msgspec.json.encode(log.fold.summary)
        agrees = expected == run.summary
        if not agrees and self._of_before:
            agrees = msgspec.json.decode(run.summary).items() <= msgspec.json.decode(expected).items()
        if not agrees or folded.flow_run.status != run.status:
            yield f"run {run.id}: its row says {run.summary!r} and {run.status}, its log {folded.flow_run}"
        stored = data.steps(run)
        made = [msgspec.json.encode(step) for step in folded.steps]
        if stored != made:
            odd = next(pair for pair in zip([*stored, b""], [*made, b""], strict=False) if pair[0] != pair[1])
            yield f"run {run.id}: a step is stored as {odd[0]!r}, its log says {odd[1]!r}"

    def _resumed(self, run: RunRow, log: Log, ready_at: str) -> Iterator[str]:
        before = self._interrupted[run.id]
        if len(log.events) > before:
            first = decode_event(log.events[before]).at
            seconds = max(0.0, _seconds(ready_at, first))
            self.resume_s.append(seconds)
            if seconds > RESUME_LIMIT_S:
                yield f"run {run.id} ({run.flow}) went on only {seconds:.1f} s after the start"

    def _told(self, runs: list[RunRow]) -> Iterator[str]:
        """Whatever anybody was sent is in the log, unchanged, where it said that it is."""
        for run_id, events in self._book.told.items():
            log = self.logs[run_id].events if run_id in self.logs else []
            for seq, data in events.items():
                if seq > len(log) or log[seq - 1] != data:
                    yield f"a reader of run {run_id} was sent event {seq}, {data!r}, and the log has it not"
            events.clear()
        for run_id, events in self._book.walked.items():
            log = self.logs[run_id].events if run_id in self.logs else []
            for seq, data in events.items():
                if seq > len(log) or not _same_event(log[seq - 1], data):
                    yield f"the caller of run {run_id} was sent event {seq}, {data!r}, and the log has it not"
            events.clear()
        known = {run.id for run in runs}
        for run_id in self._book.known_runs():
            if run_id not in known:
                yield f"run {run_id} was acknowledged and does not exist"

    def _ending(self, data: Data, run: RunRow, log: Log, asked: Asked) -> Iterator[str]:
        """The run has ended, as its flow says and as its caller was told."""
        expected = FLOWS[run.flow]
        result = expected.result(run.tag, asked.n)
        if run.status not in TERMINAL and not (run.status == "paused" and asked.is_left):
            yield f"it is left {run.status} at event {run.head}, {log.last}"
        elif run.status == "cancelled":
            if not asked.may_be_cancelled:
                yield "it was cancelled, and nobody has asked for it"
        elif asked.was_cancelled:
            yield f"its cancelling was acknowledged, and it is {run.status}"
        elif run.status in TERMINAL and run.status != expected.status:
            yield f"it is {run.status}: {log.events[-1]!r}"
        elif run.status == "completed" and data.result(run) != result:
            yield f"its result is {data.result(run)}, not {result}"
        if asked.answer is not None and run.status in TERMINAL:
            yield from _answered(asked, run, result)
        yield from self._attempts(data, run, log)

    def _attempts(self, data: Data, run: RunRow, log: Log) -> Iterator[str]:
        """Every attempt is there with its own start, the lost ones among them; waits keep their deadline."""
        seen: dict[tuple[Address, int], StepTrace] = {}
        for row in data.attempts(run):
            step = msgspec.json.decode(row, type=StepTrace)
            seen[Address(step.step_id, step.loop_path), step.attempt] = step
        never = log.failures[Address("never", None)]
        if never not in (0, NEVER_TIMES) and run.status == "completed":
            yield f"a step failed {never} times and was to be tried {NEVER_TIMES} times"
        for (address, attempt), at in log.started_at.items():
            step = seen.get((address, attempt), StepTrace(step_id=address.step_id))
            if step.started_at != at:
                yield f"attempt {attempt} of {address} started at {at}, not at {step.started_at}"
            if (address, attempt) in log.lost and step.status != "failed":
                yield f"attempt {attempt} of {address} was lost and is {step.status}"
            if address.step_id == "hold" and step.status == "completed":
                due_ms = HOLD_MS - milliseconds_between(log.started_at[address, 1], at)
                took_ms = milliseconds_between(at, step.completed_at or at)
                if attempt > 1:
                    self.waits_ms.append((took_ms, max(0, due_ms)))
                if took_ms > max(0, due_ms) + self._late_ms or took_ms + self._early_ms < due_ms:
                    yield f"attempt {attempt} of the wait took {took_ms} ms; due were {max(0, due_ms)}"

    def _effects(self, run: RunRow, log: Log) -> Iterator[str]:
        """What was done outside was done by attempts in the log, once by each, and not after the end."""
        for address, last in log.attempts.items():
            path = NO_PATH if address.loop_path is None else ",".join(map(str, address.loop_path))
            calls = self._outside.calls.get(Effect(run.tag, address.step_id, path), Counter())
            twice = [attempt for attempt, times in calls.items() if times > 1]
            if twice:
                yield f"attempts {twice} of {address} were made more than once"
            if max(calls, default=0) > log.completed.get(address, last):
                yield f"{address} was called in attempts {sorted(calls)}, its log ends with {last}"


def _answered(asked: Asked, run: RunRow, result: object) -> Iterator[str]:
    """An answer from after the end: what it says is what the log says."""
    assert asked.answer is not None
    said = asked.answer.get("status", "failed" if asked.status == 500 else None)
    ended = "failed" if run.status == "cancelled" else run.status
    if said != ended or (said == "completed" and asked.answer.get("result") != result):
        yield f"its caller was told {asked.status} {asked.answer}, and it is {run.status}"
    if run.status == "failed" and LOST in str(asked.answer):
        yield f"it was given up: {asked.answer}"


def _same_event(stored: bytes, sent: bytes) -> bool:
    """Whether they differ in content at most, which a caller gets in full."""
    if stored == sent:
        return True
    one, other = decode_event(stored), decode_event(sent)
    same = (one.seq, one.at, one.execution_id) == (other.seq, other.at, other.execution_id)
    return same and event_type_of(stored) == event_type_of(sent)


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
