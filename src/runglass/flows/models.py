"""The models that llm steps name, and the settings that they give them.

A setting reaches a provider only if it is known to change neither the model, nor what is counted and charged,
nor where the request goes and on whose behalf. Names are judged here; values are the engine's business.
"""

import importlib.util
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from runglass.flows.diagnostics import Finding, Path, shown
from runglass.support.safe_text import suggestion

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
    try:
        is_missing = module is not None and importlib.util.find_spec(module) is None
    except ModuleNotFoundError:
        # Looking for a module inside a missing package raises.
        is_missing = True
    if is_missing:
        extra = provider.partition("-")[0]
        message = (
            f"the package for models of {provider!r} is not installed on this machine; where the flow runs, "
            f'it needs: pip install "pydantic-ai-slim[{extra}]"'
        )
        yield Finding(message, (*path, "model"), is_warning=True)


def setting_findings(step: dict[str, Any], path: Path) -> Iterator[Finding]:
    """Names in an llm step's `settings` that no model of its provider takes, and values that none takes."""
    settings, model = step.get("settings"), step.get("model")
    if not isinstance(settings, dict):
        return
    families = frozenset(OWN)
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


PLAIN = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "max_tokens",
        "parallel_tool_calls",
        "presence_penalty",
        "seed",
        "stop",
        "stop_sequences",
        "stream",
        "temperature",
        "thinking",
        "top_k",
        "top_p",
    }
)
"""Settings with the same meaning for every provider, which every caller may set."""

PRICED = "service_tier"
"""Settings that change the price of a token: only authors of flows and administrators may set them."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


OWN: dict[str, frozenset[str]] = {
    "anthropic": _names(
        "cache cache_instructions cache_messages cache_tool_definitions eager_input_streaming "
        "effort metadata thinking"
    ),
    "bedrock": _names("cache_instructions cache_messages cache_tool_definitions"),
    "cerebras": _names("clear_thinking disable_reasoning"),
    "google": _names("logprobs safety_settings thinking_config top_logprobs video_resolution"),
    "groq": _names("reasoning_effort reasoning_format"),
    "mistral": frozenset({"prompt_cache_key"}),
    "openai": _names(
        "logprobs prompt_cache_key reasoning_context reasoning_effort reasoning_summary "
        "send_reasoning_ids text_verbosity top_logprobs truncation user"
    ),
    "openrouter": _names("cache_instructions cache_messages cache_tool_definitions reasoning transforms"),
    "snowflake": frozenset({"reasoning"}),
    "typesafe": _names("boolean_threshold tool_call_threshold"),
    "xai": _names("include_encrypted_content logprobs reasoning_effort top_logprobs user"),
    "zai": frozenset({"clear_thinking"}),
}
"""Settings of one provider without its name in front, for each that has such in `pydantic_ai.models`."""

EXTRAS: dict[str, frozenset[str]] = {
    "extra_body": _names(
        "cache_prompt chat_template_kwargs dry_allowed_length dry_base dry_multiplier "
        "dry_penalty_last_n dynatemp_exponent dynatemp_range enable_thinking grammar "
        "guided_choice guided_grammar guided_json guided_regex json_schema logprobs min_p "
        "mirostat mirostat_eta mirostat_tau reasoning_effort repeat_last_n repeat_penalty "
        "repetition_penalty response_format safe_prompt skip_special_tokens structured_outputs "
        "tfs_z top_a top_k top_logprobs typical_p verbosity xtc_probability xtc_threshold"
    ),
    "extra_headers": _names("http-referer x-title"),
}
"""Fields and headers that a flow may add to a request by hand."""

NEVER: dict[str, frozenset[str]] = {
    "extra_body": _names(
        "api_key base_url best_of contents functions input max_completion_tokens "
        "max_output_tokens max_tokens messages model models n num_return_sequences prompt "
        "provider route stream stream_options system tool_choice tools usage"
    ),
    "extra_headers": _names(
        "api-key authorization connection content-encoding content-length content-type cookie "
        "expect forwarded host openai-organization openai-project origin proxy-authorization te "
        "transfer-encoding upgrade x-api-key x-forwarded-for x-forwarded-host x-goog-api-key"
    ),
}
"""Names that no setting of the server can allow."""

_LONGEST_SHOWN = 100


class SettingRules:
    """The rules with what the setting `allowed_settings` adds: names by provider, or for `*`.

    An added name is one of `settings`, as `openai_store`, or `extra_body.FIELD`, or `extra_headers.NAME`.
    Raises ValueError for one that must not be added.
    """

    def __init__(self, more: Mapping[str, Collection[str]]) -> None:
        # Case matters in names of fields, not in names of headers.
        self._more = {
            provider: frozenset(name.lower() if name.startswith("extra_headers.") else name for name in names)
            for provider, names in more.items()
        }
        for provider, names in self._more.items():
            for name in names:
                container, _, field = name.partition(".")
                if field.lower() in NEVER.get(container, ()) or name in EXTRAS:
                    raise ValueError(f"{provider}: {name!r} cannot be allowed; name single harmless fields")

    def refusal(self, model: str, settings: Mapping[str, Any]) -> str | None:
        """The reason why a step must not ask `model` with these settings, as a sentence; None where it may.

        The sentence begins with the field. Settings have no effect on `echo`, so it takes any.
        """
        if not settings or model == OFFLINE_MODEL:
            return None
        return next(self._refusals(_provider(model), settings, is_author=True), None)

    def refusal_to_caller(
        self, model: str, settings: Mapping[str, Any], known: Mapping[str, Any]
    ) -> str | None:
        """As `refusal`, for overrides by a key with the role `run`; `known` are the flow's own settings."""
        changed = {
            name: value for name, value in settings.items() if name not in known or known[name] != value
        }
        return next(self._refusals(_provider(model), changed, is_author=False), None)

    def _refusals(self, provider: str, settings: Mapping[str, Any], *, is_author: bool) -> Iterator[str]:
        more = self._more.get(provider, frozenset()) | self._more.get("*", frozenset())
        families = {"openai", *re.split(r"[-/]", provider)}
        if provider == OFFLINE_MODEL:
            families = set(OWN)
        for name, value in settings.items():
            if name in PLAIN or name in more:
                continue
            if name in EXTRAS:
                if not is_author:
                    yield f"`settings.{name}` may be set by the flow or with an `admin` key alone"
                elif isinstance(value, Mapping):
                    yield from _extras(provider, name, value, more)
                continue
            family, _, own = name.partition("_")
            is_known = name == PRICED or (family in families and bool(own))
            is_allowed = is_author if name == PRICED else own in OWN.get(family, ())
            if is_known and not is_allowed:
                yield _not_listed(provider, name)


def _extras(provider: str, name: str, value: Mapping[Any, Any], more: frozenset[str]) -> Iterator[str]:
    for key in value:
        field = key.lower() if name == "extra_headers" else key
        if field not in EXTRAS[name] and f"{name}.{field}" not in more:
            if str(field).lower() in NEVER[name]:
                yield f"`settings.{name}.{_shown(key)}` is never sent: it could change model, bill or address"
            else:
                yield _not_listed(provider, f"{name}.{key}")


def _provider(model: str) -> str:
    # The name may still be of any length here.
    return model.partition(":")[0][:_LONGEST_SHOWN]


def _shown(name: str) -> str:
    return name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}…"


def _not_listed(provider: str, name: str) -> str:
    name = _shown(name)
    return (
        f"`settings.{name}` is not among the settings that may be sent to provider {provider!r}; the server's"
        f" setting `allowed_settings` can add it: {{{provider!r}: [{name!r}]}}"
    )


NOTHING_MORE = SettingRules({})
