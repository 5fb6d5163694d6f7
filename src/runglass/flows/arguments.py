"""The arguments of a call: overrides of steps and inputs, applied to a flow or checked against it.

Whether an override is one is said apart from whether the caller may set it. A field with its present value is
no change, as callers repeat their overrides when they resume a run.
"""

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any, NoReturn

import msgspec

from runglass.config.settings import USUAL
from runglass.errors import APIError, api_error
from runglass.flows.diagnostics import Finding, path_text
from runglass.flows.flow import (
    OVERRIDABLE,
    ConditionStep,
    Flow,
    LeafStep,
    LlmStep,
    LoopStep,
    ParallelStep,
    Step,
    every_step,
    leaves,
)
from runglass.flows.models import OFFLINE_MODEL, SettingRules, provider_missing
from runglass.flows.parser import flow_rules
from runglass.flows.schemas.defaults import TooManyDefaults, fill_defaults
from runglass.flows.schemas.schema import findings_in, sentence
from runglass.support.safe_text import suggestion

MAX_MISTAKES = 10
MAX_UNKNOWN = 5
"""The most unknown step ids of a request that an error names, each with the known id that is near."""


def apply_overrides(
    flow: Flow,
    overrides: Mapping[str, Mapping[str, Any]],
    *,
    schema_limit_bytes: int = USUAL.schema_limit_bytes,
) -> Flow:
    """The flow with fields of leaf steps set anew: `{step id: {field: value}}`, in the file's spelling.

    A field replaces the step's whole value; `settings.NAME` sets one setting and leaves the others.

    Raises INVALID_REQUEST naming each field that cannot be set or whose value a flow file could not have, and
    MODEL_NOT_SUPPORTED for a model that names no provider.
    """
    steps = {step.id: step for step in every_step(flow.steps)}
    mistakes: list[Finding] = []
    changed: dict[str, LeafStep] = {}
    if unknown := [step_id for step_id in overrides if step_id not in steps]:
        told = [f"{step_id:.100}" for step_id in unknown[:MAX_UNKNOWN]]
        for step_id in told:
            message = f"the flow has no step {step_id!r}{suggestion(step_id, steps)}"
            mistakes.append(Finding(message, ("blockOverrides", step_id)))
        more = len(unknown) - len(told)
        _refuse(mistakes, more=f"; and {more:,} more steps that it does not have" if more else "")
    for step_id, fields in overrides.items():
        if len(mistakes) > MAX_MISTAKES:
            break
        path, step = ("blockOverrides", step_id), steps[step_id]
        if not isinstance(step, LeafStep):
            mistakes.append(Finding("only steps that do work can be changed, not one that holds steps", path))
        else:
            fixed = [Finding("cannot be changed", (*path, name)) for name in ("id", "type") if name in fields]
            whole = {**msgspec.to_builtins(step), **merge_settings(step, fields)}
            if isinstance(step, LlmStep) and (problem := provider_missing(whole["model"])):
                raise api_error(
                    "MODEL_NOT_SUPPORTED", f"`{path_text((*path, 'model'))}`: {problem}", step_id=step_id
                )
            found = fixed or list(islice(flow_rules(schema_limit_bytes).step(whole, path), MAX_MISTAKES + 1))
            mistakes += found
            if not found:
                overridden = msgspec.convert(whole, type(step), strict=False)
                # The name stays: traces have it in every capture mode, and it must be the same in all runs.
                changed[step_id] = msgspec.structs.replace(overridden, name=step.name)
    if mistakes:
        _refuse(mistakes)
    return msgspec.structs.replace(flow, steps=_replaced(flow.steps, changed)) if changed else flow


def merge_settings(step: Step, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The overrides of an llm step with each `settings.NAME` merged into `settings`; null removes one.

    They are merged into the step's own settings, or into those that are set beside them.
    """
    prefix = "settings."
    single = {name.removeprefix(prefix): value for name, value in fields.items() if name.startswith(prefix)}
    if not single or not isinstance(step, LlmStep):
        return fields
    merged = {name: value for name, value in fields.items() if not name.startswith(prefix)}
    settings = merged.get("settings", step.settings)
    if isinstance(settings, Mapping):
        kept = {name: value for name, value in settings.items() if name not in single}
        merged["settings"] = kept | {name: value for name, value in single.items() if value is not None}
    return merged


def _replaced(steps: list[Step], changed: Mapping[str, LeafStep]) -> list[Step]:
    replaced: list[Step] = []
    for step in steps:
        match step:
            case LoopStep():
                step = msgspec.structs.replace(step, steps=_replaced(step.steps, changed))
            case ConditionStep():
                then, otherwise = _replaced(step.then, changed), _replaced(step.else_, changed)
                step = msgspec.structs.replace(step, then=then, else_=otherwise)
            case ParallelStep():
                branches = {name: _replaced(inner, changed) for name, inner in step.branches.items()}
                step = msgspec.structs.replace(step, branches=branches)
        replaced.append(changed.get(step.id, step))
    return replaced


def with_defaults(flow: Flow, inputs: dict[str, Any]) -> dict[str, Any]:
    """A run's inputs with the `default`s of the flow's `inputs` for missing members.

    Raises INVALID_REQUEST where the defaults would make far too large a value.
    """
    if flow.inputs is None:
        return inputs
    try:
        return fill_defaults(inputs, flow.inputs)
    except TooManyDefaults as error:
        raise api_error("INVALID_REQUEST", f"`inputs` of flow {flow.slug!r}: {error}") from error


def check_inputs(flow: Flow, inputs: dict[str, Any], *, quick_bytes: int | None = None) -> None:
    """Raises INVALID_REQUEST, naming the fields, where a run's inputs do not fit the flow's `inputs`.

    With `quick_bytes`, about the size of the inputs as JSON, raises Unproved like `schemas.findings_in`.
    """
    if flow.inputs is None:
        return
    found = (
        finding._replace(path=(() if finding.path[:1] == ("message",) else ("parameters",)) + finding.path)
        for finding in findings_in(inputs, flow.inputs, quick_bytes=quick_bytes)
    )
    if mistakes := list(islice(found, MAX_MISTAKES + 1)):
        _refuse(mistakes)


def _refuse(mistakes: list[Finding], *, more: str = "") -> NoReturn:
    listed = list(dict.fromkeys(map(sentence, mistakes)))
    more = more or ("; and more" if len(listed) > MAX_MISTAKES else "")
    raise api_error("INVALID_REQUEST", "; ".join(listed[:MAX_MISTAKES]) + more)


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
    """Whether a model string fits one of the patterns, such as `openai:*`; every project may use `echo`."""
    if model == OFFLINE_MODEL:
        return True
    return len(model) <= _LONGEST_MODEL and any(fnmatchcase(model, pattern) for pattern in patterns)


def check_fields(
    flow: Flow, overrides: Mapping[str, Mapping[str, Any]], rules: SettingRules
) -> frozenset[str]:
    """The models that overrides bring. Raises FORBIDDEN for a field that a `run` key may not set.

    Invalid overrides, such as those of unknown steps, pass, as `apply_overrides` refuses them.
    """
    steps = {step.id: step for step in leaves(flow.steps)}
    offered = offered_fields(flow)
    models = set()
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
        if not isinstance(step, LlmStep):
            continue
        model = fields.get("model", step.model)
        named = model if isinstance(model, str) else step.model
        if isinstance(settings := fields.get("settings"), Mapping):
            refusal = rules.refusal_to_caller(named, settings, step.settings)
            if refusal is not None:
                raise _forbidden(step_id, "settings", refusal)
        if named != step.model:
            models.add(named)
    return frozenset(models)


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
    """Raises FORBIDDEN for a step whose model or settings project or server do not allow, for any role."""
    for step in leaves(flow.steps):
        if not isinstance(step, LlmStep):
            continue
        refusal = rules.refusal(step.model, step.settings)
        if patterns is not None and not is_allowed(step.model, patterns):
            refusal = (
                f"model {step.model[:_LONGEST_SHOWN]!r} is not among the models of the project; `runglass"
                f" projects models ORG/PROJECT PATTERN…` sets them, now {', '.join(patterns) or 'none'}"
            )
        if refusal is not None:
            raise api_error("FORBIDDEN", f"step {step.id!r}: {refusal}", step_id=step.id)


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
