"""What a segment of a run has: its log, its services, its memory and its limits.

The interpreter, containers, attempts and calls of models share it; none of them takes its parts one by one.
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
    crash_retries: int
    budgets: Budgets
    limits: Limits


class RunContext(msgspec.Struct, frozen=True, kw_only=True):
    """The context of one segment of one run; secrets in `inputs` are struck from errors.

    `budget` is asked before each step and before each request to a model. `store_turns` are those of the
    project, `model_calls` those of all. `answers_call` says that the content of events is stored for the
    caller of this segment, whatever the log keeps.
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
    answers_call: bool = False
