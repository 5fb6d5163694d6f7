"""The fields of a flow that a caller may override for a run, and the models that a project may use.

`apply_overrides` in `flows/arguments.py` says whether an override is one; this file says whether the caller
may. A field with its present value is no change, as callers repeat their overrides when they resume a run.
"""

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from runglass.config.providers import SettingRules
from runglass.errors import APIError, api_error
from runglass.flows.arguments import merge_settings
from runglass.flows.flow import OVERRIDABLE, Flow, LeafStep, LlmStep, leaves

ALWAYS_ALLOWED = "echo"
"""The offline model, which every project may use."""

_DEFAULT = ("prompt", "system", "input", "settings", "output_schema", "model")
_LONGEST_SHOWN = 100
_LONGEST_MODEL = 256
"""The longest name of a model, as in a flow."""


def offered_fields(flow: Flow) -> Collection[str]:
    """The fields of a flow's steps that it lets every caller set."""
    return _DEFAULT if flow.overridable is None else flow.overridable


def may_hand_in(flow: Flow, role: str) -> bool:
    """Whether a caller may set inputs and outputs of steps, which is another way to override their input."""
    return role == "admin" or "input" in offered_fields(flow)


def models_in(flow: Flow) -> frozenset[str]:
    """The models of a flow's steps."""
    return frozenset(step.model for step in leaves(flow.steps) if isinstance(step, LlmStep))


def is_allowed(model: str, patterns: Iterable[str]) -> bool:
    """Whether a model string fits one of the patterns, such as `openai:*`."""
    if model == ALWAYS_ALLOWED:
        return True
    return len(model) <= _LONGEST_MODEL and any(fnmatchcase(model, pattern) for pattern in patterns)


def new_models(flow: Flow, overrides: Mapping[str, Mapping[str, Any]]) -> frozenset[str]:
    """The models that overrides bring into the flow's steps."""
    steps = {step.id: step for step in leaves(flow.steps)}
    return frozenset(
        model
        for step_id, fields in overrides.items()
        if isinstance(step := steps.get(step_id), LlmStep)
        and isinstance(model := fields.get("model"), str)
        and model != step.model
    )


def check_fields(
    flow: Flow, overrides: Mapping[str, Mapping[str, Any]], rules: SettingRules
) -> frozenset[str]:
    """The models that overrides bring. Raises FORBIDDEN for a field that a `run` key may not set.

    Invalid overrides, such as those of unknown steps, pass, as `apply_overrides` refuses them.
    """
    steps = {step.id: step for step in leaves(flow.steps)}
    offered = offered_fields(flow)
    for step_id, fields in overrides.items():
        step = steps.get(step_id)
        if step is None:
            continue
        fields = merge_settings(step, fields)
        for name, value in fields.items():
            if name in OVERRIDABLE and name not in offered and not _is_same(step, name, value):
                raise _forbidden(
                    step_id,
                    name,
                    f"flow {flow.slug!r} does not let a `run` key set it; list {name!r} in the flow's"
                    " `overridable`, or use an `admin` key",
                )
        if isinstance(step, LlmStep) and isinstance(settings := fields.get("settings"), Mapping):
            model = fields.get("model", step.model)
            named = model if isinstance(model, str) else step.model
            refusal = rules.refusal_to_caller(named, settings, step.settings)
            if refusal is not None:
                raise _forbidden(step_id, "settings", refusal)
    return new_models(flow, overrides)


def check_new_models(models: Iterable[str], patterns: Collection[str], *, source: str) -> None:
    """Raises FORBIDDEN for a new model that no pattern of `source` allows."""
    for model in models:
        if not is_allowed(model, patterns):
            raise api_error(
                "FORBIDDEN",
                f"a `run` key may not set model {model[:_LONGEST_SHOWN]!r}: it is not among {source};"
                " `runglass projects models ORG/PROJECT PATTERN…` allows more, or use an `admin` key",
            )


def check_flow_models(flow: Flow, patterns: Collection[str] | None, rules: SettingRules) -> None:
    """Raises FORBIDDEN for a step whose model or settings the project or the server does not allow."""
    for step in leaves(flow.steps):
        if not isinstance(step, LlmStep):
            continue
        refusal = flow_refusal(step, patterns, rules)
        if refusal is not None:
            raise api_error("FORBIDDEN", f"step {step.id!r}: {refusal}", step_id=step.id)


def flow_refusal(step: LlmStep, patterns: Collection[str] | None, rules: SettingRules) -> str | None:
    """The reason why no run may have this step, for any role; None where it may."""
    if patterns is not None and not is_allowed(step.model, patterns):
        return (
            f"model {step.model[:_LONGEST_SHOWN]!r} is not among the models of the project;"
            f" `runglass projects models ORG/PROJECT PATTERN…` sets them, now {', '.join(patterns) or 'none'}"
        )
    return rules.refusal(step.model, step.settings)


def _is_same(step: LeafStep, name: str, value: Any) -> bool:
    before = msgspec.to_builtins(step)
    if name in before and before[name] == value:
        return True
    try:
        return msgspec.convert({**before, name: value}, type(step), strict=False) == step
    except msgspec.ValidationError:
        # The value is invalid for the field; for this caller it is forbidden all the same.
        return False


def _forbidden(step_id: str, name: str, why: str) -> APIError:
    return api_error("FORBIDDEN", f"`blockOverrides.{step_id}.{name}`: {why}", step_id=step_id)
