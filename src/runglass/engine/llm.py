"""Language models as the engine sees them: one call that takes a request and gives an answer.

Knows which model strings are built in and which belong to a provider; what a provider is stays in
`providers.py`, which is imported, off the event loop, when the first such model is asked.
"""

import asyncio
from collections.abc import Callable, Mapping
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Self

from runglass.engine import echo
from runglass.engine.checks import Checks
from runglass.engine.model_call import AnswerRejected, CallFailed, ModelAnswer, ModelRequest
from runglass.engine.prices import Price
from runglass.errors import StepFailure

if TYPE_CHECKING:
    from runglass.engine.providers import Providers

__all__ = ["AnswerRejected", "CallFailed", "ModelAnswer", "ModelRequest", "Models", "Price"]


class Models:
    """Every model that a flow may name. A context manager: leaving it closes the HTTP clients.

    `base_urls` points a provider name, a known or a new one, at any OpenAI-compatible server. `api_keys` are
    by provider name, and stand over the providers' environment variables. `prices` are by model string.
    `checks` judge answers by their schema, by default its own.
    """

    def __init__(
        self,
        *,
        base_urls: Mapping[str, str] | None = None,
        api_keys: Mapping[str, str] | None = None,
        prices: Mapping[str, Price] | None = None,
        checks: Checks | None = None,
    ) -> None:
        self._base_urls = dict(base_urls or {})
        self._api_keys = dict(api_keys or {})
        self._prices = dict(prices or {})
        self._owns_checks = checks is None
        self._checks = checks or Checks()
        self._providers: Providers | None = None
        self._importing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the HTTP clients; calls still in progress fail."""
        if self._providers is not None:
            await self._providers.aclose()
            self._providers = None
        if self._owns_checks:
            await self._checks.aclose()

    async def ready(self, model: str) -> None:
        """Loads what the model needs, once, so that no attempt's time is spent on it."""
        if model != echo.NAME and ":" in model:
            await self._loaded()

    async def complete(self, request: ModelRequest, on_text: Callable[[str], None]) -> ModelAnswer:
        """The answer to `request`; `on_text` hears its text in pieces as they come.

        Raises StepFailure where nothing was sent, CallFailed where no whole answer came, and AnswerRejected
        where an answer came that must be paid for but cannot be used.
        """
        price = self._prices.get(request.model)
        if request.model == echo.NAME:
            return await echo.echo(request, on_text, self._checks, price)
        provider, _, name = request.model.partition(":")
        if not provider or not name:
            raise StepFailure(
                "MODEL_NOT_SUPPORTED",
                f"model {request.model!r} names no provider: write PROVIDER:MODEL, or `echo` to try it out",
                may_retry=False,
            )
        return await (await self._loaded()).complete(request, on_text, price)

    async def _loaded(self) -> "Providers":
        async with self._importing:
            if self._providers is None:
                module = await asyncio.to_thread(import_module, "runglass.engine.providers")
                self._providers = module.Providers(
                    base_urls=self._base_urls, api_keys=self._api_keys, checks=self._checks
                )
        providers: Providers = self._providers
        return providers
