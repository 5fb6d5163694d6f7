"""The laws of one run's log, checked event by event as it grows: what no crash may ever make untrue."""

from collections import Counter
from collections.abc import Iterator

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
    StepProgress,
    StepResumed,
    StepRetrying,
    StepSkipped,
    StepStarted,
    decode_event,
    is_terminal,
)
from runglass.log.fold import Address, TraceFold

LOST = "WORKER_LOST"
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

_WITHIN = (StepInput, StepResumed, StepProgress, StepModelReserved, StepModelCall, StepOutput)
"""Events after which an attempt goes on."""


class Log:
    """A run's log as far as it has been read. `started_at` and `lost` are by address and attempt;
    `failures` counts the attempts that failed by themselves."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.events: list[bytes] = []
        self.fold = TraceFold()
        self.last = ""
        self.ended = False
        self.open: dict[Address, int] = {}
        self.completed: dict[Address, int] = {}
        self.attempts: dict[Address, int] = {}
        self.started_at: dict[tuple[Address, int], str] = {}
        self.lost: set[tuple[Address, int]] = set()
        self.failures: Counter[Address] = Counter()
        self._over: set[Address] = set()
        self._loops: dict[str, set[Address]] = {"loop_started": set(), "loop_completed": set()}
        self._cut: dict[Address, int] = {}
        self._next: dict[Address, int] = {}
        self._at = ""

    def cut_off(self) -> None:
        """The process died here: every attempt that was going on must be told to be lost, first of all."""
        self._cut = dict(self.open)

    def add(self, seq: int, data: bytes) -> Iterator[str]:
        """Takes in the next event; yields each law that it breaks."""
        event = decode_event(data)
        self.events.append(data)
        self.fold.apply(event)
        if seq != len(self.events) or event.seq != seq or event.execution_id != self.run_id:
            yield f"event {seq} is the log's number {len(self.events)} and calls itself {event.seq}"
        if self.ended:
            yield f"event {seq} comes after the last one, {self.last}"
        if isinstance(event, RunStarted) is not (seq == 1):
            yield f"event {seq} is a {event.event_type}"
        if event.at < self._at:
            yield f"event {seq} is dated before the one before it"
        if self.last == "run_input" and seq > 3 and not isinstance(event, FlowFailed):
            yield f"the input of the run is event {seq - 1}, and a {event.event_type} follows"
        self._at, self.last = event.at, event.event_type
        if isinstance(event, LoopStarted | LoopCompleted):
            address = Address(event.step_id, event.loop_path)
            yield from self._once(address, self._loops[event.event_type], seq)
            if address not in self._loops["loop_started"]:
                yield f"event {seq} ends a loop that has not begun: {_name(address)}"
        elif isinstance(event, StepSkipped):
            yield from self._once(Address(event.step_id, event.loop_path), self._over, seq)
        elif isinstance(event, StepStarted):
            yield from self._begin(event)
        elif isinstance(event, OfAttempt):
            yield from self._go_on(event)
        if is_terminal(event):
            # The last event of a run that did not end well ends its attempts, too.
            self.ended = True
            running = [step.step_id for step in self.fold.trace().steps if step.status == "running"]
            if running or (self.open and isinstance(event, FlowCompleted)):
                yield f"the run has ended and steps run on: {running or sorted(self.open)}"

    def _once(self, address: Address, seen: set[Address], seq: int) -> Iterator[str]:
        if address in seen:
            yield f"event {seq}, a {self.last}, repeats one for {_name(address)}"
        seen.add(address)

    def _begin(self, event: StepStarted) -> Iterator[str]:
        address = Address(event.step_id, event.loop_path)
        expected = self._next.get(address, 1)
        if address in self._over:
            yield f"{_name(address)} was run again, as attempt {event.attempt}, when it had ended"
        elif address in self.open:
            yield f"{_name(address)} has two attempts at once, {self.open[address]} and {event.attempt}"
        elif event.attempt != expected:
            yield f"{_name(address)} goes on with attempt {event.attempt}, not {expected}"
        self.open[address] = self.attempts[address] = event.attempt
        self.started_at[address, event.attempt] = event.at

    def _go_on(self, event: OfAttempt) -> Iterator[str]:
        address = Address(event.step_id, event.loop_path)
        if self.open.get(address) != event.attempt:
            yield f"{event.event_type} {event.seq} is for no attempt of {_name(address)} that goes on"
        if address in self._cut and isinstance(event, StepInput | StepModelCall):
            # What the lost attempt was given, and that its model may have been asked, is told before its end.
            return
        if self._cut.pop(address, None) is not None and not (
            isinstance(event, StepRetrying | StepError) and _code(event) == LOST
        ):
            yield f"{_name(address)} was cut off in attempt {event.attempt}, and {event.event_type} follows"
        if isinstance(event, _WITHIN):
            return
        self.open.pop(address, None)
        if isinstance(event, StepCompleted):
            self.completed[address] = event.attempt
        elif _code(event) == LOST:
            self.lost.add((address, event.attempt))
        else:
            self.failures[address] += 1
        if isinstance(event, StepRetrying):
            self._next[address] = event.next_attempt
            if event.next_attempt != event.attempt + 1:
                yield f"{_name(address)}: attempt {event.next_attempt} is to follow {event.attempt}"
        else:
            self._over.add(address)


def _code(event: StepRetrying | StepError) -> str:
    return str((event.error or {}).get("code"))


def _name(address: Address) -> str:
    path = "" if address.loop_path is None else f" in iteration {','.join(map(str, address.loop_path))}"
    return f"step {address.step_id!r}{path}"
