"""Checkpoints of a run that lives: a process that goes on with it need not repeat finished steps.

A checkpoint holds the output of a finished step as JSON, an object or null; or, as a list, the error that a
step was lost with; or `true` for a loop that has ended, whose output follows from the steps inside. The
decision of a container, its items or its branch, is kept under its id with a `?`, which no id has.
"""

from collections.abc import Iterable
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from runglass.engine.journal.run_spec import Pause, SegmentSpec
from runglass.engine.payload import Payload
from runglass.flows.flow import Flow, LoopStep, Step, inside, within
from runglass.store.records import Checkpoint

PAUSE = ("", "")
"""The address of a run's pause; no step has an empty id."""
SEGMENT = ("", "stretch")
"""The address of the segment that goes on, where it is not the run's first."""
ENDED = b"true"


class StepPosition(NamedTuple):
    """Where in the flow: position of the top-level step, loop iterations around, outermost first.

    `path_text` is the loop path as checkpoints have it. The steps of an iteration share their position.
    """

    step_index: int
    loop_path: tuple[int, ...] | None = None
    loop_index: int | None = None
    path_text: str = ""

    def iteration(self, index: int) -> "StepPosition":
        return self.inside((*(self.loop_path or ()), index))

    def inside(self, loop_path: tuple[int, ...] | None) -> "StepPosition":
        """The position of a step at that loop path, below the same top-level step."""
        return StepPosition(
            self.step_index, loop_path, loop_path[-1] if loop_path else None, path_text(loop_path)
        )


class FailureCheckpoint(NamedTuple):
    """The step in which the work was lost, the error for the run's caller, and as the log captures it."""

    step_id: str
    error: dict[str, Any]
    captured: msgspec.Raw = msgspec.Raw()


class CheckpointSet:
    """The checkpoints of a run, read back."""

    def __init__(self, rows: Iterable[Checkpoint] = ()) -> None:
        self._rows = {(row.step_id, row.loop_path): row.data for row in rows}
        self._pause = self._rows.pop(PAUSE, None)
        self._segment_spec = self._rows.pop(SEGMENT, None)

    def check(self) -> None:
        """Raises msgspec.DecodeError where a checkpoint is not the JSON that it was."""
        for data in self._rows.values():
            msgspec.json.decode(data, type=msgspec.Raw)

    def __len__(self) -> int:
        return len(self._rows)

    def decoded(self) -> tuple[SegmentSpec | None, Pause | None, dict[str, Any]]:
        """The segment that goes on, where it is not the run's first; in what the run waits, or waited last;
        and the outputs by step id, those inside of loops left out. Raises msgspec.DecodeError.
        """
        spec, pause = self._segment_spec, self._pause
        ended = {
            step_id: msgspec.json.decode(data)
            for (step_id, path), data in self._rows.items()
            if not path and not step_id.endswith("?")
        }
        return (
            None if spec is None else msgspec.json.decode(spec, type=SegmentSpec),
            None if pause is None else msgspec.json.decode(pause, type=Pause),
            {step_id: output for step_id, output in ended.items() if output is None or type(output) is dict},
        )

    def take_decision(self, step: Step, position: StepPosition) -> bytes | None:
        """JSON of the decision of the container there; None where it has none. Each can be taken once."""
        return self._rows.pop((f"{step.id}?", position.path_text), None)

    def take(self, step: Step, position: StepPosition) -> Payload | FailureCheckpoint | None:
        """How the step has ended there; None where it has not, or follows from what is inside."""
        data = self._rows.get((step.id, position.path_text))
        if data is None or data == ENDED:
            return None
        if data.startswith(b"["):
            failure = msgspec.json.decode(data, type=FailureCheckpoint)
            # Earlier versions kept one error for both.
            return (
                failure
                if failure.captured
                else failure._replace(captured=msgspec.Raw(msgspec.json.encode(failure.error)))
            )
        return Payload.encoded(data)

    def holds(self, step_id: str, loop_path: tuple[int, ...] | None) -> bool:
        """Whether anything is kept of how the step ended there."""
        return (step_id, path_text(loop_path)) in self._rows


def size_of(rows: Iterable[Checkpoint]) -> int:
    """About how much there is to decode, in bytes."""
    return sum(len(row.data) for row in rows)


def pause_checkpoint(pause: Pause) -> Checkpoint:
    return Checkpoint(*PAUSE, msgspec.json.encode(pause))


def segment_checkpoint(segment_spec: SegmentSpec) -> Checkpoint:
    return Checkpoint(*SEGMENT, msgspec.json.encode(segment_spec))


def decision_checkpoint(step: Step, position: StepPosition, decision: bytes) -> Checkpoint:
    return Checkpoint(f"{step.id}?", position.path_text, decision)


def lost_checkpoints(flow: Flow, failure: FailureCheckpoint, position: StepPosition) -> list[Checkpoint]:
    """The step that is lost, and the containers around it up to one with `on_error: continue`."""
    data = msgspec.json.encode(failure)
    checkpoints = []
    for step, loops in _outwards(flow.steps, failure.step_id):
        goes_on = step.on_error == "continue"
        path = path_text((position.loop_path or ())[:loops])
        checkpoints.append(Checkpoint(step.id, path, b"null" if goes_on else data))
        if goes_on:
            break
    return checkpoints


def kept_ids(steps: Iterable[Step]) -> list[str]:
    """The ids under which these steps, and those inside of them, keep anything."""
    return [name for top in steps for step in within(top) for name in (step.id, f"{step.id}?")]


def _outwards(steps: Iterable[Step], step_id: str, loops: int = 0) -> list[tuple[Step, int]]:
    """The step and the containers around it, innermost first, each with the number of loops around it."""
    for step in steps:
        if step.id == step_id:
            return [(step, loops)]
        found = _outwards(chain.from_iterable(inside(step)), step_id, loops + isinstance(step, LoopStep))
        if found:
            return [*found, (step, loops)]
    return []


def path_text(loop_path: tuple[int, ...] | None) -> str:
    """A loop path as the store keeps it: `0,3`, outermost first; empty outside of loops."""
    return ",".join(map(str, loop_path)) if loop_path else ""
