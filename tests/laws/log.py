"""The laws of one run's log, checked event by event as it grows: what no crash may ever make untrue."""

from collections import Counter
from collections.abc import Iterable

import msgspec

from runglass.engine.journal.resume import WORKER_LOST
from runglass.log.events import (
    FlowCompleted,
    FlowFailed,
    LoopCompleted,
    LoopStarted,
    RunStarted,
    StepCompleted,
    StepError,
    StepInput,
    StepModelCall,
    StepModelReserved,
    StepOutput,
    StepPaused,
    StepPausedForToolCalls,
    StepProgress,
    StepRecorded,
    StepResumed,
    StepRetrying,
    StepSkipped,
    StepStarted,
    StreamEvent,
    decode_event,
    is_terminal,
)
from runglass.log.fold import Address, TraceFold
from runglass.log.trace import StepTrace
from runglass.store.records import StepRow
from tests.laws.law import Lie, Lies, law

OfAttempt = (
    StepInput
    | StepResumed
    | StepProgress
    | StepModelReserved
    | StepModelCall
    | StepOutput
    | StepCompleted
    | StepRetrying
    | StepError
)

NUMBERS = law("events count from 1 on, and are of their run")
FIRST = law("run_started is the first event, and no other one")
LAST = law("nothing follows the event that ends a run")
DATES = law("no event is older than the one before it")
LATE_INPUT = law("the input of a run that we execute comes at its start, or right before its failure")
ONCE = law("a step ends once, and so does a loop")
ATTEMPTS = law("attempts of a step follow each other, one at a time")
WITHIN = law("what an attempt does is between its start and its end")
RUNNING = law("no attempt goes on when its run has ended")
SPANS = law("a span has one address from its name on, which no other span has")
TOLD_LOST = law("an attempt that is cut off is told to be lost, first of all")


class Log:
    """A run's log as far as it has been read, with the trace that it adds up to.

    Of one that `may_go_back`, callers may have steps run again after each pause; of others only those that
    `drop` names. `open` are the attempts that go on, `lost` those that a process took with it, and `failures`
    counts the attempts that failed by themselves.
    """

    def __init__(self, run_id: str, *, may_go_back: bool = False) -> None:
        self.run_id = run_id
        self._may_go_back = may_go_back
        self.events: list[bytes] = []
        self.fold = TraceFold()
        self.last = ""
        self.ended = False
        self.open: dict[Address, int] = {}
        self.completed: dict[Address, int] = {}
        self.attempts: Counter[Address] = Counter()
        self.lost: set[tuple[Address, int]] = set()
        self.failures: Counter[Address] = Counter()
        self._over: set[Address] = set()
        self._loops: dict[str, set[Address]] = {"loop_started": set(), "loop_completed": set()}
        self._cut: set[Address] = set()
        self._at = ""
        self._positions: dict[Address, int] = {}
        self._spans: dict[Address, str] = {}
        self._named: dict[str, Address] = {}
        self._earlier: list[StepRow] = []
        self._rows: dict[int, tuple[StepTrace, StepRow]] = {}

    @property
    def status(self) -> str:
        return self.fold.summary.status

    @property
    def step_rows(self) -> list[StepRow]:
        """What a store must have of the latest attempt of each step."""
        return [self._row(position, step) for position, step in enumerate(self.fold.trace().steps, 1)]

    @property
    def attempt_rows(self) -> list[StepRow]:
        """What a store must have of all attempts, by position, then number."""
        return sorted([*self._earlier, *self.step_rows], key=lambda row: (row.position, row.attempt))

    def cut_off(self) -> None:
        """The process died here."""
        self._cut = set(self.open)

    def drop(self, step_ids: Iterable[str]) -> None:
        """These steps are run again; not one of them that waits for tools, which goes on."""
        dropped = set(step_ids)
        for known in (self._over, *self._loops.values()):
            known.difference_update([address for address in known if address.step_id in dropped])

    def add(self, seq: int, data: bytes) -> Lies:
        """Takes the next event in; yields each law that it breaks."""
        event = decode_event(data)
        self._note_earlier(event)
        self.events.append(data)
        self.fold.apply(event)
        told = (seq, event.seq, event.execution_id)
        expected = (len(self.events), len(self.events), self.run_id)
        if told != expected:
            yield Lie(NUMBERS, self.run_id, seq, told, expected)
        if self.ended:
            yield Lie(LAST, self.run_id, seq, event.event_type, f"nothing after {self.last}")
        if isinstance(event, RunStarted) is not (seq == 1):
            yield Lie(FIRST, self.run_id, seq, event.event_type, "run_started as event 1")
        if event.at < self._at:
            yield Lie(DATES, self.run_id, seq, event.at, f"at least {self._at}")
        is_early = seq <= 3 or self.fold.summary.recording is not None
        if self.last == "run_input" and not is_early and not isinstance(event, FlowFailed):
            yield Lie(LATE_INPUT, self.run_id, seq, event.event_type, "flow_failed after a late run_input")
        self._at, self.last = event.at, event.event_type
        if isinstance(event, LoopStarted | LoopCompleted):
            address = Address(event.step_id, event.loop_path)
            yield from self._once(address, self._loops[event.event_type], seq)
            if address not in self._loops["loop_started"]:
                yield Lie(ONCE, self.run_id, seq, f"the end of {_name(address)}", "its start before")
        elif isinstance(event, StepSkipped):
            address = Address(event.step_id, event.loop_path)
            yield from self._once(address, self._over, seq)
            yield from self._count(address, event.attempt, seq)
        elif isinstance(event, StepStarted):
            yield from self._begin(event)
        elif isinstance(event, OfAttempt):
            yield from self._go_on(event)
        elif isinstance(event, StepRecorded):
            address, span = Address(event.step_id, event.loop_path), event.span
            if self._spans.setdefault(address, span.span_id) != span.span_id:
                yield Lie(SPANS, self.run_id, seq, _name(address), f"that of span {self._spans[address]}")
            if span.name is not None and self._named.setdefault(span.span_id, address) != address:
                yield Lie(SPANS, self.run_id, seq, _name(address), _name(self._named[span.span_id]))
        elif self._may_go_back and isinstance(event, StepPaused | StepPausedForToolCalls):
            for known in (self._over, *self._loops.values()):
                known.clear()
        if is_terminal(event):
            # The last event of a run that did not end well ends its attempts, too.
            self.ended = True
            running = [step.step_id for step in self.fold.trace().steps if step.status == "running"]
            if isinstance(event, FlowCompleted):
                running += map(_name, self.open)
            if running:
                yield Lie(RUNNING, self.run_id, seq, running, [])

    def _note_earlier(self, event: StreamEvent) -> None:
        """Notes the latest attempt of a step that another one follows."""
        if not isinstance(event, StepStarted | StepSkipped):
            return
        address = Address(event.step_id, event.loop_path)
        if (position := self._positions.get(address)) is not None:
            self._earlier.append(self._row(position, self.fold.trace().steps[position - 1]))
        self._positions.setdefault(address, len(self._positions) + 1)

    def _row(self, position: int, step: StepTrace) -> StepRow:
        known = self._rows.get(position)
        if known is None or known[0] is not step:
            path = ",".join(map(str, step.loop_path or ()))
            data = msgspec.json.encode(step)
            row = StepRow(position, step.step_id, path, step.attempt, step.status, data)
            known = self._rows[position] = (step, row)
        return known[1]

    def _once(self, address: Address, seen: set[Address], seq: int) -> Lies:
        if address in seen:
            yield Lie(ONCE, self.run_id, seq, f"{self.last} of {_name(address)}", "none, as there was one")
        seen.add(address)

    def _count(self, address: Address, attempt: int, seq: int) -> Lies:
        self.attempts[address] += 1
        if attempt != self.attempts[address]:
            yield Lie(ATTEMPTS, self.run_id, seq, f"{_name(address)} #{attempt}", self.attempts[address])

    def _begin(self, event: StepStarted) -> Lies:
        address = Address(event.step_id, event.loop_path)
        if address in self._over:
            found = f"{_name(address)} #{event.attempt}"
            yield Lie(ONCE, self.run_id, event.seq, found, "none, as the step has ended")
        elif address in self.open:
            found = f"{_name(address)} #{event.attempt}"
            yield Lie(ATTEMPTS, self.run_id, event.seq, found, f"#{self.open[address]}, which goes on")
        yield from self._count(address, event.attempt, event.seq)
        self.open[address] = event.attempt

    def _go_on(self, event: OfAttempt) -> Lies:
        address = Address(event.step_id, event.loop_path)
        if self.open.get(address) != event.attempt:
            found = f"{event.event_type} of {_name(address)} #{event.attempt}"
            yield Lie(WITHIN, self.run_id, event.seq, found, self.open.get(address))
        if address in self._cut and isinstance(event, StepInput | StepModelCall):
            # What the lost attempt was given, and that its model may have been asked, is told before its end.
            return
        is_end = isinstance(event, StepCompleted | StepRetrying | StepError)
        code = error_code(event) if isinstance(event, StepRetrying | StepError) else ""
        if address in self._cut:
            self._cut.discard(address)
            if code != WORKER_LOST:
                found = f"{event.event_type} {code} of {_name(address)}"
                yield Lie(TOLD_LOST, self.run_id, event.seq, found, WORKER_LOST)
        if not is_end:
            return
        self.open.pop(address, None)
        if isinstance(event, StepCompleted):
            self.completed[address] = event.attempt
        elif code == WORKER_LOST:
            self.lost.add((address, event.attempt))
        else:
            self.failures[address] += 1
        if not isinstance(event, StepRetrying):
            self._over.add(address)
        elif event.next_attempt != event.attempt + 1:
            found = f"{_name(address)} #{event.next_attempt} after #{event.attempt}"
            yield Lie(ATTEMPTS, self.run_id, event.seq, found, event.attempt + 1)


def error_code(event: StepRetrying | StepError) -> str:
    """Why the attempt failed."""
    return str((event.error or {}).get("code"))


def _name(address: Address) -> str:
    path = "" if address.loop_path is None else f" in iteration {','.join(map(str, address.loop_path))}"
    return f"step {address.step_id!r}{path}"
