"""Whether the models of a flow have a provider and a key for it, asked before a run of it is started.

Whether a provider's package is there, and whether it has such a model, shows when a step asks it. Must not
import pydantic-ai itself, which takes a second.
"""

import asyncio
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

from runglass.engine.models.gateway import ModelGateway
from runglass.errors import api_error
from runglass.flows.flow import Flow, LlmStep, ParallelStep, Step, leaves
from runglass.flows.models import OFFLINE_MODEL, provider_missing
from runglass.support.import_without_gc import loading


class ProviderCheck:
    """The provider names that a server knows: pydantic-ai's, and those that its settings give an address."""

    def __init__(self, *, own_providers: Iterable[str]) -> None:
        self._known = set(own_providers)

    async def check(self, flow: Flow) -> None:
        """Raises MODEL_NOT_SUPPORTED for the first step whose model names no provider that is known."""
        first_with: dict[str, str] = {}
        for step in leaves(flow.steps):
            if isinstance(step, LlmStep):
                first_with.setdefault(step.model, step.id)
        for model, step_id in first_with.items():
            if problem := provider_missing(model) or await self._unknown_provider(model):
                raise api_error("MODEL_NOT_SUPPORTED", f"step {step_id!r}: {problem}", step_id=step_id)

    async def _unknown_provider(self, model: str) -> str | None:
        provider = model.partition(":")[0]
        if model == OFFLINE_MODEL or provider in self._known:
            return None
        problem = await asyncio.to_thread(_ask, model)
        if problem is None:
            self._known.add(provider)
        return problem


class MissingKey(NamedTuple):
    """The first step of a flow that asks a provider for which there is no key, and its error."""

    step_id: str
    error: dict[str, Any]


async def missing_key(flow: Flow, models: ModelGateway) -> MissingKey | None:
    """The key without which no run of the flow ends well in this process; None where there is none."""
    for step in _always_asked(flow.steps):
        if message := await models.missing_key(step.model):
            return MissingKey(step.id, {"code": "PROVIDER_KEY_MISSING", "message": message})
    return None


def _always_asked(steps: list[Step]) -> Iterator[LlmStep]:
    """The llm steps that every run asks and that must not fail: a loop, too, may have nothing to do."""
    for step in steps:
        if step.on_error == "continue":
            continue
        if isinstance(step, LlmStep):
            yield step
        elif isinstance(step, ParallelStep):
            for branch in step.branches.values():
                yield from _always_asked(branch)


@loading()
def _ask(model: str) -> str | None:
    problem: str | None = import_module("runglass.engine.models.provider_requests").unknown_provider(model)
    return problem
