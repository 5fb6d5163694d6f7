"""The services that steps use: a kind of step that needs another one gets it from here."""

import math

import msgspec

from runglass.engine.models.gateway import ModelGateway
from runglass.engine.sandbox.sandbox import Sandbox
from runglass.engine.sandbox.templates import Templates
from runglass.engine.scheduling.fair_share import FairTurns, Shares
from runglass.support.clock import Clock


class StepDependencies(msgspec.Struct, frozen=True, kw_only=True):
    """The services that steps use, shared by all runs of a process; `project_id` is that of the run."""

    sandbox: Sandbox
    templates: Templates
    models: ModelGateway
    clock: Clock
    model_turns: FairTurns = msgspec.field(default_factory=lambda: FairTurns(Shares(math.inf)))
    project_id: int = 0
