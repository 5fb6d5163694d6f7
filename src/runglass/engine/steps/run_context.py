"""What a segment of a run has: its log, its services, its memory and its limits.

The interpreter, containers, attempts and calls of models share it; none of them takes its parts one by one.
The content of events on its way to the caller is held here too, or stored where it is too much.
"""

from collections.abc import Callable

import msgspec

from runglass.bus.base import Bus
from runglass.engine.capture.capture import Capture
from runglass.engine.journal.run_writer import RunWriter
from runglass.engine.models.budget import Budgets, RunBudget
from runglass.engine.models.gateway import ModelGateway
from runglass.engine.payload import Payload
from runglass.engine.run_memory import RunMemory
from runglass.engine.steps.run_limits import DrainGate, RunUsage, StopRequest
from runglass.engine.workers.sandbox import Sandbox
from runglass.engine.workers.templates import Templates
from runglass.flows.flow import Flow
from runglass.limits.limits import Limits, StoreTurns
from runglass.limits.shares import FairTurns
from runglass.store.base import Store
from runglass.support.clock import Clock
from runglass.wire.run_api import CaptureFailed, CaptureMode

MOST_BYTES = 1 << 20
"""Beyond this, content goes to the store and is read back from there, however slowly its caller reads."""


class LiveOutputs:
    """What one caller is to have of the events of its segment, until the caller has read or left."""

    def __init__(self) -> None:
        self.stored: set[int] = set()
        """Seqs of the events whose content is in the store."""
        self._held: dict[int, bytes] = {}
        self._bytes = 0
        self._is_open = True

    def keep(self, seq: int, content: bytes) -> bool:
        """Whether the content needs no place in the store: it is held, or its caller has left."""
        if not self._is_open:
            return True
        if self._held and self._bytes + len(content) > MOST_BYTES:
            self.stored.add(seq)
            return False
        self._held[seq] = content
        self._bytes += len(content)
        return True

    def pop(self, seq: int) -> bytes | None:
        """The content of an event that is held, once."""
        content = self._held.pop(seq, None)
        self._bytes -= len(content or b"")
        return content

    def close(self) -> None:
        """The caller has read everything, or left: nothing more is held."""
        self._is_open = False
        self._held.clear()
        self.stored.clear()
        self._bytes = 0


class StepDependencies(msgspec.Struct, frozen=True, kw_only=True):
    """The services that steps use, shared by all runs of a process.

    A kind of step that needs another service gets it from here.
    """

    sandbox: Sandbox
    templates: Templates
    models: ModelGateway
    clock: Clock


class EngineContext(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that all segments of an engine share."""

    store: Store
    bus: Bus
    dependencies: StepDependencies
    make_capture: Callable[[CaptureMode, CaptureFailed], Capture]
    gate: DrainGate
    budgets: Budgets
    limits: Limits


class RunContext(msgspec.Struct, frozen=True, kw_only=True):
    """The context of one segment of one run; secrets in `inputs` are struck from errors.

    `budget` is asked before each step and before each request to a model. `store_turns` are those of the
    project, `model_calls` those of all. `outputs`, if given, gets the content of events for the caller of
    this segment, by seq, whatever the log keeps; `answers_call` says that it is stored, too, for a call that
    may be sent again.
    """

    run_id: str
    project_id: int
    flow: Flow
    inputs: Payload
    dependencies: StepDependencies
    writer: RunWriter
    capture: Capture
    gate: DrainGate
    stop: StopRequest
    memory: RunMemory
    usage: RunUsage
    store_turns: StoreTurns
    model_calls: FairTurns
    budget: RunBudget | None = None
    outputs: LiveOutputs | None = None
    answers_call: bool = False
