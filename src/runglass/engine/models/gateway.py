"""Language models as the engine sees them: one call that takes a request and gives an answer.

Knows which model strings are built in and which belong to a provider; the providers themselves stay in
`provider_requests.py`, which is imported, off the event loop, when the first such model is asked. Whether the
models of a flow have a provider and a key for it is asked before a run of it is started; whether a provider's
package is there, and whether it has such a model, shows when a step asks it.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Self

from runglass.config.settings import USUAL, Settings
from runglass.engine.models.echo import echo
from runglass.engine.models.model_types import (
    AnswerRejected,
    ModelAnswer,
    ModelCallFailed,
    ModelRequest,
    RequestObserver,
)
from runglass.engine.models.pricing import most_of, prompt_bound, with_max_tokens
from runglass.engine.models.request_parser import as_given
from runglass.engine.workers.checks import Checks
from runglass.errors import StepFailure, api_error
from runglass.flows.flow import Flow, LlmStep, ParallelStep, Step, leaves
from runglass.flows.models import NOTHING_MORE, OFFLINE_MODEL, SettingRules, provider_missing
from runglass.limits.pace import current_project, paced
from runglass.log.money import ZERO
from runglass.support.import_without_gc import loading

if TYPE_CHECKING:
    from runglass.engine.models.provider_requests import ProviderRequests

__all__ = ["AnswerRejected", "ModelAnswer", "ModelCallFailed", "ModelGateway", "ModelRequest"]


CALL_S = 0.003
"""Seconds of the event loop that a library takes for a call, however short its answer."""
_PROVIDERS = "runglass.engine.models.provider_requests"


class ModelGateway:
    """Every model that a flow may name. A context manager: leaving it closes the HTTP clients.

    `providers` of the settings points a name, a known or a new one, at any OpenAI-compatible server. A
    request whose settings go against `rules` is not made. `checks` judge answers by their schema, by default
    its own.
    """

    def __init__(
        self,
        settings: Settings = USUAL,
        *,
        rules: SettingRules = NOTHING_MORE,
        checks: Checks | None = None,
    ) -> None:
        self._settings = settings
        self._rules = rules
        self._owns_checks = checks is None
        self._checks = checks or Checks(settings)
        self._providers: ProviderRequests | None = None
        self._missing_keys: dict[str, str | None] = {}
        self._importing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._providers is not None:
            await self._providers.clients.aclose()
            self._providers = None
        if self._owns_checks:
            await self._checks.aclose()

    async def ready(self, model: str) -> None:
        """Loads what the model needs, once, and waits for the project's turn: no attempt's time is spent."""
        if model != OFFLINE_MODEL and ":" in model:
            await self._loaded()
            async with paced("loop", current_project.get()) as piece:
                piece.worked_s = CALL_S

    async def missing_key(self, model: str) -> str | None:
        """What to do where this process has no key for the provider of `model`; None where it may have one.

        The first question about a provider makes its client, which the steps that ask it then have.
        """
        provider, _, name = model.partition(":")
        if not name or provider in self._settings.providers or provider in self._settings.provider_keys:
            return None
        if provider not in self._missing_keys:
            missing = None
            try:
                await (await self._loaded()).clients.prepared(model)
            except StepFailure as failure:
                # Any other failure is for the step to tell.
                missing = failure.message if failure.code == "PROVIDER_KEY_MISSING" else None
            self._missing_keys[provider] = missing
        return self._missing_keys[provider]

    async def bounded(self, request: ModelRequest) -> tuple[ModelRequest, Decimal]:
        """`request` as it is sent on a budget, and the most that it can cost in US dollars.

        Raises StepFailure where no price of the model is known or `max_tokens` is no limit: without these
        there is no bound.
        """
        price = self._settings.prices.get(request.model)
        if request.model == OFFLINE_MODEL:
            if price is None:
                return request, ZERO
            # It costs nothing to ask it twice.
            answer = await echo(request, lambda _: None, self._checks, price)
            return request, answer.response.cost_usd or ZERO
        request = with_max_tokens(request, self._settings.default_max_tokens)
        limit = request.settings["max_tokens"]
        # Less than a token would be a bound below nothing, and give room to others until it is refused.
        if type(limit) is not int or limit < 1:
            message = f"`settings.max_tokens` must be a whole number from 1 on, not {limit!r:.50}"
            raise StepFailure("INVALID_INPUT", message, may_retry=False)
        prompt = prompt_bound(request, image_tokens=self._settings.image_tokens)
        if price is not None:
            return request, most_of(price, prompt=prompt, completion=limit)
        usd = None
        if ":" in request.model:
            providers = await self._loaded()
            usd = await providers.list_cost(request.model, prompt=prompt, completion=limit)
        if usd is None:
            raise StepFailure(
                "MODEL_NOT_SUPPORTED",
                f"no price is known for model {request.model!r}, and the project has a budget: give one in"
                " the server's setting `prices`, or lift the budget",
                may_retry=False,
            )
        return request, usd

    async def complete(
        self,
        request: ModelRequest,
        on_text: Callable[[str], None],
        *,
        observer: RequestObserver | None = None,
    ) -> ModelAnswer:
        """The answer to `request`; `on_text` hears its text in pieces as they come.

        `observer` hears of each request as it goes out. Some servers decline a request for its form alone,
        and are asked in another one.

        Raises StepFailure where nothing was sent, ModelCallFailed where no whole answer came, and
        AnswerRejected where an answer came that must be paid for but cannot be used.
        """
        price = self._settings.prices.get(request.model)
        if request.model == OFFLINE_MODEL:
            if observer is not None:
                await observer.sent(partial(as_given, request), 0)
            return await echo(request, on_text, self._checks, price)
        if problem := provider_missing(request.model):
            raise StepFailure("MODEL_NOT_SUPPORTED", problem, may_retry=False)
        if refusal := self._rules.refusal(request.model, request.settings):
            raise StepFailure("INVALID_INPUT", refusal, may_retry=False)
        return await (await self._loaded()).complete(request, on_text, price, observer)

    async def _loaded(self) -> "ProviderRequests":
        async with self._importing:
            if self._providers is None:
                load = loading()(import_module)
                module = await asyncio.to_thread(load, _PROVIDERS)
                self._providers = module.ProviderRequests(self._settings, self._checks)
        providers: ProviderRequests = self._providers
        return providers


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
        # Imported there: it takes a second.
        ask = loading()(lambda: import_module(_PROVIDERS).unknown_provider(model))
        problem: str | None = await asyncio.to_thread(ask)
        if problem is None:
            self._known.add(provider)
        return problem


async def missing_key(flow: Flow, models: ModelGateway) -> tuple[str, str] | None:
    """The first step that needs a key without which no run of the flow ends well in this process, and what
    to do; None where there is none.
    """
    for step in _always_asked(flow.steps):
        if message := await models.missing_key(step.model):
            return step.id, message
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
