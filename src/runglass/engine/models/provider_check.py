"""Whether the models of a flow have a provider, asked before a run of it is started.

Judges names only: whether a provider's package and key are there, and whether it has such a model, shows when
a step asks it. Must not import pydantic-ai itself, which takes a second.
"""

import asyncio
from collections.abc import Iterable
from importlib import import_module

from runglass.errors import api_error
from runglass.flow import Flow, LlmStep, leaves
from runglass.flow_models import OFFLINE_MODEL, provider_missing


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


def _ask(model: str) -> str | None:
    problem: str | None = import_module("runglass.engine.models.provider_requests").unknown_provider(model)
    return problem
