"""The models that llm steps name, and the settings that they give them."""

import importlib.util
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from runglass.flows.diagnostics import Finding, Path, shown
from runglass.flows.schemas.schema import suggestion

OFFLINE_MODEL = "echo"


class CommonSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The `settings` of a step that mean the same for every provider.

    Their names are those of `pydantic_ai.settings.ModelSettings`, without the ones that the engine sets;
    `stop`, as the OpenAI API calls `stop_sequences`; and `stream`, which the engine obeys.
    """

    temperature: float | UnsetType = UNSET
    max_tokens: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    top_p: float | UnsetType = UNSET
    top_k: int | UnsetType = UNSET
    seed: int | UnsetType = UNSET
    stop: str | list[str] | UnsetType = UNSET
    stop_sequences: list[str] | UnsetType = UNSET
    presence_penalty: float | UnsetType = UNSET
    frequency_penalty: float | UnsetType = UNSET
    logit_bias: dict[str, int] | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    stream: bool | UnsetType = UNSET
    thinking: bool | Literal["minimal", "low", "medium", "high", "xhigh", "max"] | UnsetType = UNSET
    service_tier: Literal["auto", "default", "flex", "priority"] | UnsetType = UNSET
    extra_headers: dict[str, str] | UnsetType = UNSET
    extra_body: dict[str, Any] | UnsetType = UNSET


SETTINGS = CommonSettings.__struct_fields__
"""The names that a step's `settings` may have."""

SETTING_FAMILIES = frozenset(
    {
        "anthropic",
        "bedrock",
        "cerebras",
        "google",
        "groq",
        "mistral",
        "openai",
        "openrouter",
        "snowflake",
        "typesafe",
        "xai",
        "zai",
    }
)
"""Providers with settings of their own, `openai_…`, in the modules of `pydantic_ai.models`."""

PROVIDER_PACKAGES: dict[str, str] = {
    "anthropic": "anthropic",
    "bedrock": "boto3",
    "cohere": "cohere",
    "google": "google.genai",
    "google-cloud": "google.genai",
    "google-decisions": "google.genai",
    "groq": "groq",
    "huggingface": "huggingface_hub",
    "mistral": "mistralai",
    "typesafe": "typesafe_sdk",
    "voyageai": "voyageai",
    "xai": "xai_sdk",
}
"""Providers for which pydantic-ai needs a package of their own, and the module that it imports of it."""


def provider_missing(model: Any) -> str | None:
    """The mistake in a model string that names no provider, or no model of it; None where there is none.

    The schema reports a value that is no string.
    """
    if not isinstance(model, str) or not model or model == OFFLINE_MODEL:
        return None
    provider, _, name = model.partition(":")
    if "://" in name:
        # Some packages take an address for a model, and send the provider's key there.
        return (
            f"model {shown(model)} is an address: a server's own is in its settings, under a provider's name"
        )
    if provider and name:
        return None
    return f"model {shown(model)} names no provider: write PROVIDER:MODEL, or `{OFFLINE_MODEL}` to try it out"


def model_findings(model: Any, path: Path) -> Iterator[Finding]:
    """The mistake in a model string, if there is one."""
    if problem := provider_missing(model):
        yield Finding(problem, path)


def package_warnings(step: dict[str, Any], path: Path) -> Iterator[Finding]:
    """A warning where this machine lacks the package for the step's model; the server may have it."""
    model = step.get("model")
    if step.get("type") != "llm" or not isinstance(model, str):
        return
    provider = model.partition(":")[0].removeprefix("gateway/")
    module = PROVIDER_PACKAGES.get(provider)
    if module is not None and not _is_installed(module):
        extra = provider.partition("-")[0]
        message = (
            f"the package for models of {provider!r} is not installed on this machine; where the flow runs, "
            f'it needs: pip install "pydantic-ai-slim[{extra}]"'
        )
        yield Finding(message, (*path, "model"), is_warning=True)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        # Looking for a module inside a missing package raises.
        return False


def setting_findings(step: dict[str, Any], path: Path) -> Iterator[Finding]:
    """Names in an llm step's `settings` that no model of its provider takes, and values that none takes."""
    settings, model = step.get("settings"), step.get("model")
    if not isinstance(settings, dict):
        return
    families = SETTING_FAMILIES
    if isinstance(model, str) and model != OFFLINE_MODEL:
        # Any server may speak OpenAI's dialect, whatever its provider is called.
        families = frozenset({"openai", *re.split(r"[-/]", model.partition(":")[0])})
    for name, value in settings.items():
        family, _, own = str(name).partition("_")
        if name not in SETTINGS and not (own and family in families):
            hint = suggestion(name, list(SETTINGS)) or "; a provider's own fields go into `extra_body`"
            yield Finding(f"unknown setting {shown(name)}{hint}", (*path, "settings", name), at_key=True)
        elif name in SETTINGS and model != OFFLINE_MODEL:
            try:
                msgspec.convert({name: value}, CommonSettings)
            except msgspec.ValidationError as error:
                said = str(error).partition(" - at ")[0]
                yield Finding(said[:1].lower() + said[1:], (*path, "settings", name))
