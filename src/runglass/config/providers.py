"""Which `settings` of an llm step may reach a provider: those of which it is known that they change neither
the model, nor what is counted and charged, nor where the request goes and on whose behalf.

Pure. Judges names; whether a value fits is the engine's business, and a name that no model takes a mistake of
the flow.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

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
"""Settings of one provider, without its name in front."""

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

ANY_PROVIDER = "*"

_LONGEST_SHOWN = 100


class SettingRules:
    """The rules with what the setting `allowed_settings` adds: names by provider, or for `*`.

    An added name is one of `settings`, as `openai_store`, or `extra_body.FIELD`, or `extra_headers.NAME`.
    Raises ValueError for one that must not be added.
    """

    def __init__(self, more: Mapping[str, Collection[str]]) -> None:
        self._more = {provider: frozenset(map(_normal, names)) for provider, names in more.items()}
        for provider, names in self._more.items():
            for name in names:
                container, _, field = name.partition(".")
                if field.lower() in NEVER.get(container, ()) or name in EXTRAS:
                    raise ValueError(f"{provider}: {name!r} cannot be allowed; name single harmless fields")

    def refusal(self, model: str, settings: Mapping[str, Any]) -> str | None:
        """The reason why a step must not ask `model` with these settings, as a sentence; None where it may.

        The sentence begins with the field. Settings have no effect on `echo`, so it takes any.
        """
        if not settings or model == "echo":
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
        more = self._more.get(provider, frozenset()) | self._more.get(ANY_PROVIDER, frozenset())
        families = {"openai", *re.split(r"[-/]", provider)}
        if provider == "echo":
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
        # Case matters in names of fields, not in names of headers.
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


def _normal(name: str) -> str:
    return name.lower() if name.startswith("extra_headers.") else name


NOTHING_MORE = SettingRules({})
