"""The log of a run that comes from a file: each event is checked, and folded to what the run's trace is.

Whoever wrote the file may have meant harm: nothing of an event is believed that others rely on later, such as
its number, the run that it is of, and the size of amounts and indices.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from runglass.errors import RunFileError
from runglass.flows.parser import MAX_NESTING
from runglass.log.events import (
    EVENT_TYPES,
    MOST_KEPT,
    ContentKept,
    FlowCompleted,
    FlowFailed,
    RunInput,
    RunStarted,
    StepEvent,
    StepRecorded,
    StepSkipped,
    StepStarted,
    StreamEvent,
    UnknownEvent,
    decode_event,
    event_type_of,
    is_terminal,
)
from runglass.log.fold import DAMAGE, Address, RunFold, StepChange
from runglass.log.span_tree import SpanTree
from runglass.log.trace import RunSummary, StepTrace
from runglass.run_files.header import RunHeader
from runglass.support.json_weight import too_heavy
from runglass.support.lazy_json import json_bytes
from runglass.wire.query import kind_of

LARGE_EVENT_BYTES = 256 * 1024
"""A larger event is weighed before it is decoded."""
LARGEST_SUMMARY_BYTES = 1 << 20
MOST_OPEN_STEPS = 10_000
"""More than ever go on at once: a thousand iterations are the most of one loop."""
_LARGEST_NUMBER = 1 << 53
_LARGEST_INDEX = (1 << 31) - 1
_ATTEMPTS = 1 << 31
"""More than a step may have."""

_BEGINNING = b'{"eventType":"'
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", re.ASCII)
_STEP_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_USD = re.compile(r"[0-9]{1,40}(\.[0-9]{1,80})?", re.ASCII)
_TIMES = frozenset({"at", "startedAt"})
_AMOUNTS = frozenset({"costUsd", "listCostUsd", "usd"})
_COUNTS = frozenset({"prompt", "completion", "total", "cachedTokens", "cacheWriteTokens", "reasoningTokens"})
_WITH_NUMBERS = frozenset({"tokens", "modelCall", "reservation"})
"""The members of an event that are objects of ours, and not content."""
_SPAN_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)
_NANOSECONDS = re.compile(r"[0-9]{1,20}", re.ASCII)
_OF_SPAN = frozenset({"tokens", "costUsd", "inputSizeBytes", "outputSizeBytes"})


class ImportedLog:
    """Of the run that the header tells of. `most_values` is what one event may weigh."""

    def __init__(self, header: RunHeader, *, most_values: int) -> None:
        self._header = header
        self._too_heavy = partial(too_heavy, most=most_values)
        self._fold = RunFold(RunSummary(id=header.run_id, flow_id=header.flow.id, status="pending"))
        # By the hash of a step's address, position and attempt in one number: a fourth of the memory.
        self._attempts: dict[int, int] = {}
        # By position; told once they have ended: each state of an attempt has all of its model calls.
        self._running: dict[int, StepChange] = {}
        # By position: the newest of those that ended well, whose output may come with the end of the run.
        self._completed: dict[int, StepChange] = {}
        self._has_late_input = False
        self._has_ended = False
        self.trace_id: str | None = None
        self.head = 0
        self.ended_at = ""

    @property
    def summary(self) -> RunSummary:
        """The run as it ended. Raises RunFileError where it has not."""
        if not self._has_ended:
            raise RunFileError(
                f"run {self._header.run_id!r} has not ended in this file, whose last event is number"
                f" {self.head}; export it again once it has"
            )
        return self._fold.summary

    def take(self, events: Sequence[bytes]) -> Sequence[StepChange]:
        """The states of attempts that follow from further events. Raises RunFileError, which names the event.

        `head` is the number of the last event that was taken.
        """
        changes: dict[tuple[int, int], StepChange] = {}
        for data in events:
            try:
                for change in self._take(data):
                    before = self._running.pop(change.position, None)
                    if before is not None and before.step.attempt != change.step.attempt:
                        changes[before.position, before.step.attempt] = before
                    if change.step.status == "running":
                        self._running[change.position] = change
                    else:
                        changes[change.position, change.step.attempt] = change
            except DAMAGE as error:
                why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
                raise RunFileError(f"event {self.head + 1} cannot be used: {why}") from error
        if self._fold.open_count > MOST_OPEN_STEPS:
            raise RunFileError(f"after event {self.head} more than {MOST_OPEN_STEPS:,} steps go on at once")
        if len(msgspec.json.encode(self._fold.summary)) > LARGEST_SUMMARY_BYTES:
            raise RunFileError(
                f"after event {self.head} the run's summary is larger than {LARGEST_SUMMARY_BYTES:,} bytes"
            )
        if self._has_ended:
            changes |= {(each.position, each.step.attempt): each for each in self._running.values()}
        return list(changes.values())

    def _take(self, data: bytes) -> Sequence[StepChange]:
        if self._has_ended:
            raise ValueError("the run has ended with the event before it")
        event = self._read(data)
        self._check_content(event)
        if self._fold.tree is not None:
            _check_recorded(event, self._fold.tree)
        elif isinstance(event, StepRecorded):
            raise ValueError("a recorded run alone has spans, and begins with its `traceId`")
        elif isinstance(event, StepStarted | StepSkipped):
            self._reopen(event)
        elif isinstance(event, ContentKept):
            for kept in event.outputs:
                known = self._attempts.get(hash(Address(kept.step_id, kept.loop_path)), 0)
                change = self._completed.get(known // _ATTEMPTS)
                if change is None:
                    raise ValueError(
                        f"it keeps an output of step {kept.step_id!r:.100}, which has none to keep"
                    )
                self._fold.reopen(change)
        changes = self._fold.apply(event)
        self.head += 1
        if is_terminal(event):
            self._has_ended, self.ended_at = True, event.at
        for change in changes if self._fold.tree is None else ():
            step = change.step
            address = hash(Address(step.step_id, step.loop_path))
            self._attempts[address] = change.position * _ATTEMPTS + step.attempt
            self._completed.pop(change.position, None)
            if change.step.status == "completed" and self._header.capture == "metadata_only":
                self._completed[change.position] = change
        while self._completed and next(iter(self._completed)) <= self._fold.last_position - MOST_KEPT:
            del self._completed[next(iter(self._completed))]
        return changes

    def _read(self, data: bytes) -> StreamEvent:
        """The event. Raises one of the errors that `take` tells."""
        if not data.startswith(_BEGINNING) or b"\n" in data or b"\r" in data:
            raise ValueError(
                f"it does not begin with {_BEGINNING.decode()!r} on one line: events are taken as Runglass"
                " wrote them, byte for byte"
            )
        if len(data) > LARGE_EVENT_BYTES and (heavy := self._too_heavy(data)):
            raise ValueError(heavy)
        # What is decoded only when somebody reads it must be readable, too.
        members = msgspec.json.decode(data, type=dict[str, Any])
        event = decode_event(data)
        if event.event_type != event_type_of(data):
            raise ValueError("it has two members `eventType`")
        if isinstance(event, UnknownEvent) and event.event_type in EVENT_TYPES:
            raise ValueError(f"a member of {event.event_type!r} has a wrong type, or is missing")
        if event.seq != self.head + 1:
            raise ValueError(f"its seq is {event.seq}: events are numbered 1, 2, 3 … without gaps")
        if event.execution_id != self._header.run_id:
            raise ValueError(
                f"it is of run {event.execution_id!r:.60}, the header of {self._header.run_id!r}"
            )
        if not isinstance(event, UnknownEvent):
            _check(members)
        # Also where it is missing.
        if not _TIME.fullmatch(event.at):
            raise ValueError("`at` is not a time as Runglass writes it")
        if isinstance(event, StepEvent):
            _check_address(event)
        if isinstance(event, RunStarted) or self.head == 0:
            self._check_start(event)
        return event

    def _check_start(self, event: StreamEvent) -> None:
        """Raises ValueError for a first event that does not begin the run of the header."""
        header = self._header
        if not isinstance(event, RunStarted) or self.head:
            raise ValueError("a log begins with `run_started`, and has no other")
        is_recorded = kind_of(event.trigger_type) != "executed" != kind_of(header.trigger_type)
        of_event = (event.run_id, event.flow_id, event.version, event.trigger_type, event.session_id)
        of_header = (header.run_id, header.flow.id, header.version, header.trigger_type, header.session_id)
        # Trigger and session of a recorded run follow from what comes later.
        compared = 3 if is_recorded else 5
        if of_event[:compared] != of_header[:compared] or event.flow_slug not in (None, header.flow.slug):
            raise ValueError("run, flow, version, trigger or session are not those of the header")
        if is_recorded != (_TRACE_ID.fullmatch(event.trace_id or "") is not None):
            raise ValueError("a recorded run, and no other, has a `traceId` of 32 hexadecimal digits")
        self.trace_id = event.trace_id

    def _check_content(self, event: StreamEvent) -> None:
        """Raises ValueError for content of the run where its capture mode keeps none, and no reader looks."""
        capture = self._header.capture
        keeps = capture in ("redacted", "full")
        if self._has_late_input and not isinstance(event, FlowFailed):
            raise ValueError("`run_input` is the second event of a run, or comes right before `flow_failed`")
        if isinstance(event, RunInput):
            # That of a recorded run is known when its entry is.
            self._has_late_input = self.trace_id is None and not (keeps and self.head == 1)
            if capture == "off":
                raise ValueError("capture mode `off` keeps no input of a run")
        elif isinstance(event, FlowCompleted):
            if not keeps and (event.result_preview is not None or json_bytes(event, "result") is not None):
                raise ValueError(f"capture mode `{capture}` keeps no result of a run")
        elif isinstance(event, ContentKept) and capture != "metadata_only":
            raise ValueError("outputs of runs that fail are kept under capture mode `metadata_only` alone")

    def _reopen(self, event: StepStarted | StepSkipped) -> None:
        """Lets a further attempt of a step that had ended have the place of the one before."""
        address = Address(event.step_id, event.loop_path)
        known = self._attempts.get(hash(address))
        if known is None:
            return
        position, attempt = divmod(known, _ATTEMPTS)
        if event.attempt <= attempt:
            raise ValueError(f"attempt {event.attempt} of step {event.step_id!r} follows attempt {attempt}")
        if self._fold.open_step(*address) is None:
            before = StepTrace(step_id=event.step_id, loop_path=event.loop_path, attempt=attempt)
            self._fold.reopen(StepChange(position, before))


def _check_recorded(event: StreamEvent, tree: SpanTree) -> None:
    """Raises ValueError for what no recorded run has."""
    if isinstance(event, (RunStarted, RunInput, FlowCompleted, FlowFailed, UnknownEvent)):
        return
    if not isinstance(event, StepRecorded):
        raise ValueError("it is of no kind that a recorded run has")
    span = event.span
    ids, times = (span.span_id, span.parent_span_id), (span.start_time_unix_nano, span.end_time_unix_nano)
    if not all(map(_SPAN_ID.fullmatch, filter(None, ids))):
        raise ValueError("`spanId` or `parentSpanId` is not 16 hexadecimal digits in lower case")
    if not all(map(_NANOSECONDS.fullmatch, filter(None, times))):
        raise ValueError("a time of the span is no number of nanoseconds")
    if (event.step_id, event.loop_path) != tree.address_of(span.span_id, span.name):
        raise ValueError("`stepId` and `loopPath` are not those that its span has")


def _check(members: Mapping[str, Any]) -> None:
    """Raises ValueError for a number, an amount or a time that others could not work with."""
    for name, value in members.items():
        if type(value) is int:
            if not 0 <= value <= _LARGEST_NUMBER:
                raise ValueError(f"`{name}` is not between 0 and {_LARGEST_NUMBER:,}")
        elif name in _COUNTS and type(value) is float:
            raise ValueError(f"`{name}` is not a whole number")
        elif name in _AMOUNTS:
            if isinstance(value, str) and not _USD.fullmatch(value):
                raise ValueError(f"`{name}` is not an amount of US dollars as Runglass writes it")
        elif name in _TIMES:
            if isinstance(value, str):
                if not _TIME.fullmatch(value):
                    raise ValueError(f"`{name}` is not a time as Runglass writes it")
                datetime.fromisoformat(value)
        elif name in _WITH_NUMBERS and isinstance(value, dict):
            _check(value)
        elif name == "span" and isinstance(value, dict):
            _check({each: value[each] for each in value.keys() & _OF_SPAN})
            for call in value.get("modelCalls") or ():
                _check(call)


def _check_address(event: StepEvent) -> None:
    """Raises ValueError for a step or an iteration that there cannot be."""
    if not _STEP_ID.fullmatch(event.step_id):
        raise ValueError("`stepId` is not the id of a step")
    path = event.loop_path or ()
    if len(path) > MAX_NESTING:
        raise ValueError(f"`loopPath` has more than {MAX_NESTING} loops, and flows have no more")
    if not all(0 <= index <= _LARGEST_INDEX for index in path):
        raise ValueError("`loopPath` has an index that there cannot be")
    if getattr(event, "attempt", 1) not in range(1, _ATTEMPTS):
        raise ValueError("`attempt` is one that there cannot be")
    if event.loop_index is not None and event.loop_index > _LARGEST_INDEX:
        raise ValueError("`loopIndex` is one that there cannot be")
