"""From a model string to a model object of pydantic-ai: built once, kept, its HTTP client closed in the end.

Knows providers, their keys and addresses; nothing of messages, answers or money.
"""

import asyncio
from collections import OrderedDict
from contextlib import AsyncExitStack
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from typing import Any

from pydantic_ai.models import Model, infer_model
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.profiles import ModelProfile, merge_profile
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers import Provider, infer_provider, infer_provider_class
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

from runglass.config.settings import Settings
from runglass.engine.models.answer_bounds import bound, current_call, heard_of
from runglass.engine.models.message_mapping import OutputForm
from runglass.engine.models.provider_errors import setup_failure, status_may_be_charged
from runglass.engine.models.request_parser import as_sent
from runglass.support.import_without_gc import loading

_MOST_MODELS = 256
"""Model objects kept: they are small, but a caller may name any number of them."""


class PreparedModel:
    """A model object, and the forms in which it may be asked for structured output, the surest first.

    A form that the provider declines is dropped, here and for good. `one_piece` is why answers are not
    streamed, once a server has shown that it tells no usage then; `streams_usage` is whether it has shown
    that it does. That is taken for granted of hosted models, not of a server of the settings' (`is_own`).
    """

    def __init__(self, model: Model, *, is_own: bool = False) -> None:
        self.model = model
        self.one_piece: str | None = None
        self.streams_usage = not is_own
        self.shows_requests = model.provider is not None and _http_client(model.provider) is not None
        """Whether what goes out is heard of by itself."""
        self.forms: list[OutputForm] = ["auto"]
        if model.profile.get("supports_json_schema_output", False):
            self.forms = ["native", "prompted"]
        if isinstance(model.provider, OpenAICompatibleProvider):
            self.forms = ["native", "json_object", "prompted"]


class ProviderClients:
    """The model objects in use. Owns one HTTP client per provider; `aclose` closes them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._base_urls, self._api_keys = settings.providers, settings.provider_keys
        self._providers: dict[str, asyncio.Task[Provider[Any]]] = {}
        """Those that are made, and those that are being made."""
        self._models: OrderedDict[str, PreparedModel] = OrderedDict()
        self._exits = AsyncExitStack()

    async def aclose(self) -> None:
        try:
            if self._providers:
                await asyncio.wait(list(self._providers.values()))
        finally:
            await self._exits.aclose()

    async def prepared(self, model: str) -> PreparedModel:
        """The model object for a string `PROVIDER:NAME`. Raises StepFailure where none can be made."""
        if model not in self._models:
            try:
                provider = await self._provider(model.partition(":")[0])
                # A provider loads its package: too slow for the event loop.
                made = await asyncio.to_thread(self._new_model, model, provider)
            except Exception as error:
                secrets = self._api_keys.values()
                raise setup_failure(error, model=model, secrets=secrets) from error
            self._models.setdefault(model, made)
            if len(self._models) > _MOST_MODELS:
                self._models.popitem(last=False)
        self._models.move_to_end(model)
        return self._models[model]

    async def _provider(self, name: str) -> Provider[Any]:
        task = self._providers.get(name)
        if task is None:
            task = self._providers[name] = asyncio.create_task(self._make(name))
            task.add_done_callback(lambda done: self._made(name, done))
        # Several steps may wait for it: one that is cut off must not leave a client unclosed.
        return await asyncio.shield(task)

    async def _make(self, name: str) -> Provider[Any]:
        # A client loads certificates.
        provider = await asyncio.to_thread(self.new_provider, name)
        await self._exits.enter_async_context(provider)
        if (client := _http_client(provider)) is not None:
            # As the client itself reads it, which spells some names of hosts in another way.
            host = client.build_request("POST", provider.base_url).url.host
            # Kept, they would grow without end, and tell the calls of all projects to be of one client.
            client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))
            # The last hook, and so the last point before the wire.
            client.event_hooks["request"].append(partial(_show, host))
            # The first one: some libraries read the body of an error in theirs.
            client.event_hooks["response"].insert(0, partial(_bound, self._settings))
        return provider

    def _made(self, name: str, task: asyncio.Task[Provider[Any]]) -> None:
        # What has failed is tried again.
        if task.cancelled() or task.exception() is not None:
            del self._providers[name]

    @loading()
    def _new_model(self, model: str, provider: Provider[Any]) -> PreparedModel:
        name, _, model_name = model.partition(":")
        if name in self._base_urls:
            return PreparedModel(OpenAIChatModel(model_name, provider=provider), is_own=True)
        return PreparedModel(infer_model(model, provider_factory=lambda _: provider))

    @loading()
    def new_provider(self, name: str) -> Provider[Any]:
        key = self._api_keys.get(name)
        if name in self._base_urls:
            return OpenAICompatibleProvider(
                name, base_url=self._base_urls[name], api_key=key or "unset", profile=_compatible_profile
            )
        if key is None:
            return infer_provider(name)
        provider: type[Any] = infer_provider_class(name)
        made: Provider[Any] = provider(api_key=key)
        return made


def _http_client(provider: Provider[Any]) -> Any:
    """The client of httpx or httpx2 that a provider made for itself; None for libraries of other kinds."""
    return provider._own_http_client


async def _show(host: str, request: Any) -> None:
    # A few bytes unpack to any number.
    request.headers["accept-encoding"] = "identity"
    request.extensions["trace"] = heard_of
    if (call := current_call.get()) is None:
        return
    if call.failure is not None:
        # The library tries again by itself what has ended for good.
        raise call.failure
    # Elsewhere than at the model's address a login may be renewed, which nobody is to see.
    if request.method == "POST" and request.url.host == host:
        body = await request.aread()
        await call.sent(partial(as_sent, body), len(body))


async def _bound(settings: Settings, response: Any) -> None:
    if (call := current_call.get()) is not None:
        bound(call, response, settings, may_be_charged=status_may_be_charged(response.status_code))


def _compatible_profile(model_name: str) -> ModelProfile:
    """The abilities of any OpenAI-compatible server."""
    usual = OpenAICompatibleProvider.model_profile(model_name) or ModelProfile()
    return merge_profile(
        usual,
        OpenAIModelProfile(
            supports_json_schema_output=True,
            supports_json_object_output=True,
            # Some servers accept a `response_format` and ignore it; then the words must do.
            native_output_requires_schema_in_instructions=True,
            openai_chat_supports_multiple_system_messages=False,
            # OpenAI's reasoning models refuse the old name of the field, small servers know no other.
            openai_chat_supports_max_completion_tokens=bool(usual.get("openai_supports_reasoning")),
        ),
    )
