"""The log of a run against what is stored beside it: its steps, their earlier attempts, and its row.

No I/O: whoever checks a store brings the rows. Memory holds the steps that are compared, and of all others
their places.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from runglass.log.content import strip_step, strip_summary
from runglass.log.events import decode_event
from runglass.log.fold import DAMAGE, TraceFold
from runglass.log.trace import TERMINAL, RunSummary, StepTrace
from runglass.store.records import RECORDED, RunNumbers


class LogReplay:
    """The log of a run, event by event, to compare with what is stored beside it.

    Steps are compared at positions `first` to `last`. Where the run `may_lose_content`, its events may have
    less than the rest: content is removed from them first.
    """

    def __init__(self, run_id: str, *, may_lose_content: bool, first: int = 1, last: int = 2**63 - 1) -> None:
        self._run_id = run_id
        self._may_lose_content = may_lose_content
        self._first, self._last = first, last
        self._fold = TraceFold(_without_content)
        self._states: dict[tuple[int, int], StepTrace] = {}
        self._latest: dict[int, int] = {}
        self.seq = 0
        """That of the last event which was taken in, at `_at`."""
        self._at = ""
        self.is_damaged = False

    def take(self, events: Iterable[tuple[int, bytes]]) -> list[str]:
        """Takes the next events in; what is wrong with them."""
        problems = []
        for self.seq, data in events:
            try:
                event = decode_event(data)
                changes = self._fold.apply(event)
            except DAMAGE as error:
                self.is_damaged = True
                problems.append(f"event {self.seq} of run {self._run_id} cannot be read: {error}")
                break
            if (event.seq, event.execution_id) != (self.seq, self._run_id):
                problems.append(
                    f"event {self.seq} of run {self._run_id} says that it is event {event.seq} of run"
                    f" {event.execution_id}"
                )
            self._at = event.at
            for position, step in changes:
                if self._first <= position <= self._last:
                    self._states[position, step.attempt] = step
                    self._latest[position] = step.attempt
        return problems

    def unlike(self, rows: Iterable[Sequence[Any]]) -> Iterator[str]:
        """Which of these stored attempts are not what the events add up to."""
        for position, attempt, latest, step_id, loop_path, status, data in rows:
            step = self._states.pop((position, attempt), None)
            try:
                is_same = step is not None and (
                    (step_id, status, bool(latest))
                    == (step.step_id, step.status, self._latest[position] == attempt)
                    and loop_path == ",".join(map(str, step.loop_path or ()))
                    # By its meaning: an earlier version may have spelled the same step in another way.
                    and (
                        data == msgspec.json.encode(step)
                        or msgspec.json.decode(data, type=StepTrace) == step
                        or self._is_told_less(data, step, strip_step)
                    )
                )
            except DAMAGE as error:
                yield f"{self._name(position, attempt)} cannot be read: {error}"
                continue
            if not is_same:
                yield f"{self._name(position, attempt)} is not what its events add up to"

    def missing(self) -> Iterator[str]:
        """The attempts that events tell of, and that were not among the stored ones."""
        for position, attempt in self._states:
            yield f"{self._name(position, attempt)} is not stored, though its events name it"

    def unlike_row(self, row: Mapping[str, Any], *, is_early: bool) -> Iterator[str]:
        """Which of these columns of the run's row are not what the events add up to.

        Early versions kept fewer numbers of a run.
        """
        told = self._fold.summary
        try:
            summary = msgspec.json.decode(row["summary"], type=RunSummary)
            if told.flow_slug is None:
                # Logs of early versions tell neither; the upgrade has taken them from the run's row.
                told = replace(told, flow_slug=summary.flow_slug, session_id=summary.session_id)
            if summary != told and not self._is_told_less(row["summary"], told, strip_summary):
                yield f"the summary of run {self._run_id} is not what its events add up to"
        except DAMAGE as error:
            yield f"the summary of run {self._run_id} cannot be read: {error}"
            return
        # The row of a recorded run is brought up to date just before its log.
        is_ahead = row["trigger_type"] in RECORDED and told.status not in TERMINAL
        expected: dict[str, Any] = {
            "status": told.status,
            "flow_id": told.flow_id,
            "version": row["version"] if told.version is None else told.version,
            "trigger_type": (not is_ahead and told.trigger_type) or row["trigger_type"],
            "session_id": row["session_id"] if is_ahead else told.session_id,
            "ended_at": self._at if told.status in TERMINAL else None,
            **({} if is_early else RunNumbers.of(told)._asdict()),
        }
        for column, value in expected.items():
            if row[column] != value:
                yield f"the column {column} of run {self._run_id} is not what its events add up to"

    def _is_told_less(self, data: bytes, told: object, strip: Callable[[bytes], bytes]) -> bool:
        """Whether content that is stored is all that the events lack, which lose theirs first."""
        expected = msgspec.json.encode(told)
        return self._may_lose_content and len(expected) < len(data) and strip(expected) == strip(data)

    def _name(self, position: int, attempt: int) -> str:
        return f"attempt {attempt} of the step at position {position} of run {self._run_id}"


def _without_content(step: StepTrace) -> StepTrace:
    """What of a step's state a later event may add to: its place, or all where it has no content yet."""
    if step.status == "completed" and step.input_context is None and step.output_context is None:
        return step
    return StepTrace(step_id=step.step_id, attempt=step.attempt, loop_path=step.loop_path, status=step.status)
