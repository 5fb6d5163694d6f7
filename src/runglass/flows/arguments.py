"""The arguments of a call, applied to a flow or checked against it: overrides of steps, and inputs."""

from collections.abc import Mapping
from itertools import islice
from typing import Any, NoReturn

import msgspec

from runglass.errors import api_error
from runglass.flows.diagnostics import Finding, path_text
from runglass.flows.flow import (
    ConditionStep,
    Flow,
    LeafStep,
    LlmStep,
    LoopStep,
    ParallelStep,
    Step,
    every_step,
)
from runglass.flows.models import provider_missing
from runglass.flows.schemas.defaults import TooManyDefaults, fill_defaults
from runglass.flows.schemas.schema import errors_in, explain, suggestion
from runglass.flows.validation import SCHEMA_LIMIT_BYTES, flow_rules

MAX_MISTAKES = 10
MAX_UNKNOWN = 5
"""The most unknown step ids of a request that an error names, each with the known id that is near."""


def apply_overrides(
    flow: Flow,
    overrides: Mapping[str, Mapping[str, Any]],
    *,
    schema_limit_bytes: int = SCHEMA_LIMIT_BYTES,
) -> Flow:
    """The flow with fields of leaf steps set anew: `{step id: {field: value}}`, in the file's spelling.

    A field replaces the step's whole value; `settings.NAME` sets one setting and leaves the others.

    Raises INVALID_REQUEST naming each field that cannot be set or whose value a flow file could not have, and
    MODEL_NOT_SUPPORTED for a model that names no provider.
    """
    steps = {step.id: step for step in every_step(flow.steps)}
    mistakes: list[Finding] = []
    changed: dict[str, LeafStep] = {}
    _refuse_unknown([step_id for step_id in overrides if step_id not in steps], list(steps))
    for step_id, fields in overrides.items():
        if len(mistakes) > MAX_MISTAKES:
            break
        path, step = ("blockOverrides", step_id), steps[step_id]
        if not isinstance(step, LeafStep):
            mistakes.append(Finding("only steps that do work can be changed, not one that holds steps", path))
        elif not isinstance(fields, Mapping):
            mistakes.append(Finding("expected an object of fields", path))
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


def _refuse_unknown(step_ids: list[str], known: list[str]) -> None:
    """Raises INVALID_REQUEST that names the first few of the unknown ids, before any other check."""
    if not step_ids:
        return
    told = [f"{step_id:.100}" for step_id in step_ids[:MAX_UNKNOWN]]
    mistakes = [
        Finding(f"the flow has no step {step_id!r}{suggestion(step_id, known)}", ("blockOverrides", step_id))
        for step_id in told
    ]
    more = len(step_ids) - len(told)
    _refuse(mistakes, more=f"; and {more:,} more steps that it does not have" if more else "")


def _replaced(steps: list[Step], changed: Mapping[str, LeafStep]) -> list[Step]:
    return [_replaced_step(step, changed) for step in steps]


def _replaced_step(step: Step, changed: Mapping[str, LeafStep]) -> Step:
    match step:
        case LoopStep():
            return msgspec.structs.replace(step, steps=_replaced(step.steps, changed))
        case ConditionStep():
            then, otherwise = _replaced(step.then, changed), _replaced(step.else_, changed)
            return msgspec.structs.replace(step, then=then, else_=otherwise)
        case ParallelStep():
            branches = {name: _replaced(inner, changed) for name, inner in step.branches.items()}
            return msgspec.structs.replace(step, branches=branches)
        case _:
            return changed.get(step.id, step)


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

    With `quick_bytes`, about the size of the inputs as JSON, raises Unproved like `schemas.errors_in`.
    """
    if flow.inputs is None:
        return
    found = (
        finding._replace(path=(() if finding.path[:1] == ("message",) else ("parameters",)) + finding.path)
        for error in errors_in(inputs, flow.inputs, quick_bytes=quick_bytes)
        for finding in explain(error, flow.inputs)
    )
    if mistakes := list(islice(found, MAX_MISTAKES + 1)):
        _refuse(mistakes)


def _sentence(mistake: Finding) -> str:
    path, named = path_text(mistake.path), f"`{mistake.path[-1]}` "
    if mistake.message.startswith(named):
        return f"`{path}` {mistake.message.removeprefix(named)}"
    return f"`{path}`: {mistake.message}"


def _refuse(mistakes: list[Finding], *, more: str = "") -> NoReturn:
    listed = list(dict.fromkeys(_sentence(mistake) for mistake in mistakes))
    more = more or ("; and more" if len(listed) > MAX_MISTAKES else "")
    raise api_error("INVALID_REQUEST", "; ".join(listed[:MAX_MISTAKES]) + more)
