"""Earlier runs in place of new ones: which of them answers a call that is replayed, and how.

No I/O: the client hands in the files of a session's runs, and its transport asks here instead of sending a
call that would start or resume a run. Anything else that is no read is refused meanwhile.
"""

import os
import threading
import uuid
from collections.abc import Iterator
from typing import Any, Literal, TypeVar, cast
from urllib.parse import unquote

import msgspec

from runglass.client.core.connection import SESSION_HEADER, session_header
from runglass.client.core.requests import RequestSpec
from runglass.client.core.session_run import METHODS, SessionRun, asked_input, results_of
from runglass.client.core.step_session import ENDS, failure_of, required_calls
from runglass.diff.json_diff import JsonDiff, brief_pair, compare
from runglass.errors import ReplayError, ReplayMiss
from runglass.flows.diagnostics import path_text
from runglass.log.events import (
    FlowCancelled,
    FlowCompleted,
    FlowFailed,
    StepPausedForToolCalls,
    StepResumed,
    StreamEvent,
)
from runglass.wire.run_api import CompletedResult, JobAccepted

T = TypeVar("T")

Match = Literal["input", "order"]

SWITCH = "RUNGLASS_REPLAY"

EXECUTE_ENDS = (FlowCompleted, FlowFailed, FlowCancelled, StepPausedForToolCalls)
"""The events that `execute` is answered with."""


class Replay:
    """The runs of a session, each of which answers the calls that it was made by once.

    `left_over` are those that have not answered all of theirs, `misses` the calls that none could answer.
    """

    def __init__(self, session_id: str | uuid.UUID, *, match: Match) -> None:
        if os.environ.get(SWITCH) != "1":
            raise ReplayError(
                f"replays are off: set {SWITCH}=1 in the environment of a test, never in that of production"
            )
        if match not in ("input", "order"):
            raise ValueError(f"match must be 'input' or 'order', not {match!r}")
        self.session_id = session_header(session_id)[SESSION_HEADER]
        self.misses: list[ReplayMiss] = []
        self._by_order = match == "order"
        self._runs: list[SessionRun] = []
        self._lock = threading.Lock()

    @property
    def left_over(self) -> list[SessionRun]:
        """The runs that have answers left, in their order."""
        return [run for run in self._runs if run.used < len(run.answers)]

    def add(self, file: bytes) -> None:
        """Adds a run that was started before those that are here."""
        self._runs.insert(0, SessionRun(file))

    def require_runs(self) -> None:
        """Raises ReplayError where no run was added."""
        if not self._runs:
            raise ReplayError(
                f"session {self.session_id!r} has no runs that can be replayed, or none that this key sees"
            )

    def conclude(self) -> None:
        """Raises ReplayError where there were misses, or something is left over."""
        if self.misses or self.left_over:
            raise ReplayError(
                f"the replay of session {self.session_id!r} differs from what it was: {len(self.misses)} "
                f"calls were not found, {len(self.left_over)} runs are left over: {self.left_over}"
            )

    def answer(self, call: RequestSpec[T]) -> T:
        """What the server answered then. Raises what the call raised then, and ReplayMiss."""
        run, events = self._next(call)
        if run.method == "jobs":
            return cast(T, JobAccepted(status="pending", **run.facts))
        match events[-1]:
            case FlowCompleted(result=result):
                return cast(T, CompletedResult(result=result, **run.facts))
            case StepPausedForToolCalls() as pause:
                return cast(T, required_calls(pause, **run.facts))
            case end:
                failure = failure_of(run.execution_id, end)
                assert failure is not None
                raise failure

    def events(self, call: RequestSpec[Any]) -> Iterator[Any]:
        """The events with which the server answered a call of a step-through. Raises ReplayMiss."""
        yield from self._next(call)[1]

    def _next(self, call: RequestSpec[Any]) -> tuple[SessionRun, list[StreamEvent]]:
        body = msgspec.json.decode(call.body or b"{}")
        with self._lock:
            run = self._resumed(call, body) if body.get("executionId") else self._started(call, body)
            if run.method == "jobs":
                run.used = len(run.answers)
                return run, []
            events = run.answers[run.used]
            ends, seen = (ENDS, events) if call.path.endswith("/step") else (EXECUTE_ENDS, events[-1:])
            why_not = run.unkept(seen, may_be_redacted=self._by_order)
            if not isinstance(events[-1], ends):
                why_not = "it had not come to an answer when it was read"
            if why_not is not None:
                raise self._miss(call, f"run {run.execution_id!r} would be the one, but {why_not}")
            run.used += 1
            return run, events

    def _started(self, call: RequestSpec[Any], body: dict[str, Any]) -> SessionRun:
        _, _, *names, method = call.path.split("/")
        if method not in METHODS.values():
            raise self._miss(call, "only `execute`, `execute_async`, `steps` and `events` are replayed")
        flow, version = unquote(names[2]), names[3][1:] if len(names) > 3 else None
        same = [
            each
            for each in self._runs
            if (each.flow, each.method) == (flow, method) and version in (None, str(each.version))
        ]
        left = [each for each in same if each.answers and each.used == 0]
        if not left:
            why_none = f"its {len(same)} runs have answered already" if same else "it has none"
            raise self._miss(call, why_none)
        if self._by_order:
            return left[0]
        asked = asked_input(body)
        near: list[tuple[JsonDiff, SessionRun]] = []
        for each in left:
            if each.why_not is None:
                # The log has those of the first step under its id, too.
                inputs: dict[str, Any] = {}
                for step, fields in each.input["inputOverrides"].items():
                    own = isinstance(asked["inputOverrides"].get(step), dict)
                    inputs |= {step: fields} if own else fields
                found = _compared(each.input | {"inputOverrides": inputs}, asked)
                if not found.changes and not found.cut:
                    return each
                near.append((found, each))
        why: list[str] = []
        if near:
            found, nearest = min(near, key=lambda pair: len(pair[0].changes))
            why.append(f"the nearest, run {nearest.execution_id!r}, {_difference(found)}")
        why += [
            f'run {each.execution_id!r} cannot be compared, as {each.why_not}; `match="order"` would take it'
            for each in left
            if each.why_not is not None
        ]
        raise self._miss(call, "; ".join(why[:3]))

    def _resumed(self, call: RequestSpec[Any], body: dict[str, Any]) -> SessionRun:
        run_id = body["executionId"]
        run = next((each for each in self._runs if each.execution_id == run_id and each.used), None)
        if run is None:
            raise self._miss(call, f"run {run_id!r} was not started in this replay")
        if run.used == len(run.answers):
            raise self._miss(call, f"run {run_id!r} was not resumed any more")
        resumed = next((e for e in run.answers[run.used] if isinstance(e, StepResumed)), None)
        before = ((resumed and resumed.input_data) or {}).get("toolResults")
        if not self._by_order and isinstance(before, list):
            results, now = results_of(before), results_of(body.get("toolCallMessages", []))
            found = _compared(results, {call_id: now.get(call_id) for call_id in results})
            if found.changes or found.cut:
                why = f"run {run_id!r} was resumed with other tool results: it {_difference(found)}"
                raise self._miss(call, why)
        return run

    def _miss(self, call: RequestSpec[Any], why: str) -> ReplayMiss:
        miss = ReplayMiss(f"no run of session {self.session_id!r} answers {call}: {why}")
        self.misses.append(miss)
        return miss


def _compared(then: Any, now: Any) -> JsonDiff:
    return compare(then, now, most_visits=1_000_000, most_changes=20)


def _difference(found: JsonDiff) -> str:
    if not found.changes:
        return "is too large to be compared"
    first = found.changes[0]
    then, now = brief_pair(first.a, first.b)
    return f"differs at `{path_text(first.parts)}`: then {then}, now {now}"
