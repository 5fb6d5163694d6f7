"""For any overrides of a `run` key, the flow that runs differs from the stored one only in offered fields."""

from collections.abc import Mapping
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runglass.errors import APIError, FlowFileError
from runglass.flows.arguments import (
    apply_overrides,
    check_fields,
    check_new_models,
    models_in,
    offered_fields,
)
from runglass.flows.flow import OVERRIDABLE, Flow, LeafStep, LlmStep, leaves
from runglass.flows.models import (
    EXTRAS,
    NEVER,
    PLAIN,
    PRICED,
    CommonSettings,
    SettingRules,
)
from runglass.flows.parser import parse_flow
from tests.flows import smallest_step

RULES = SettingRules({})
MODELS = ("echo", "a:small", "a:large", "b:tiny", "b:other")
ALLOWED = ("a:*", "b:tiny")
FORBIDDEN_SETTINGS = ("extra_body", "extra_headers", "service_tier", "openai_store", "openai_native_tools")


def settings_of(draw: st.DrawFn) -> dict[str, Any]:
    harmless = st.sampled_from(["temperature", "max_tokens", "top_p", "openai_reasoning_effort"])
    names = draw(st.lists(harmless | st.sampled_from(FORBIDDEN_SETTINGS), max_size=3, unique=True))
    values = {"extra_body": {"min_p": 1}, "extra_headers": {"X-Title": "a"}, "max_tokens": 5}
    return {name: draw(st.sampled_from([values.get(name, 1), values.get(name, 2)])) for name in names}


def value_of(draw: st.DrawFn, name: str) -> Any:
    drawn: dict[str, Any] = {
        "prompt": st.sampled_from(["Hello", "Hi", None]),
        "system": st.sampled_from(["Be kind", None]),
        "input": st.sampled_from([{"a": 1}, None]),
        "output_schema": st.sampled_from([{"type": "object"}, None]),
        "model": st.sampled_from(MODELS),
        "tools": st.booleans(),
        "code": st.sampled_from(["return {}", 'return {"n": 1}']),
        "ms": st.integers(0, 2),
        "retry": st.sampled_from([{"max_attempts": 2}, {"max_attempts": 1}, None]),
        "timeout_ms": st.sampled_from([1, None]),
        "on_error": st.sampled_from(["fail", "continue"]),
        "name": st.sampled_from(["A name", None]),
    }
    return settings_of(draw) if name == "settings" else draw(drawn[name])


FIELDS = {
    "llm": ("prompt", "system", "input", "settings", "output_schema", "model", "tools", "retry", "on_error"),
    "code": ("input", "code", "retry", "timeout_ms", "name"),
    "wait": ("input", "ms", "on_error"),
}


@st.composite
def cases(draw: st.DrawFn) -> tuple[Flow, dict[str, dict[str, Any]]]:
    """A flow of a few steps, with or without a list of its own, and overrides that make sense for it."""

    def step(number: int) -> dict[str, Any]:
        kind = draw(st.sampled_from(list(FIELDS)))
        needed: dict[str, dict[str, Any]] = {
            "llm": {"model": "echo", "prompt": "Hello"},
            "code": {"code": "return {}"},
            "wait": {"ms": 0},
        }
        return {"id": f"s{number}", "type": kind, **needed[kind]}

    steps = [step(number) for number in range(draw(st.integers(1, 3)))]
    if draw(st.booleans()):
        steps = [{"id": "loop", "type": "loop", "over": "[1]", "steps": steps}]
    flow: dict[str, Any] = {"slug": "test", "steps": steps}
    offered = draw(st.none() | st.lists(st.sampled_from(OVERRIDABLE), unique=True))
    if offered is not None:
        flow["overridable"] = offered
    found = parse_flow(msgspec.json.encode(flow))
    overrides: dict[str, dict[str, Any]] = {}
    for leaf in leaves(found.steps):
        kind = str(leaf.__struct_config__.tag)
        names = draw(st.lists(st.sampled_from(FIELDS[kind]), max_size=3, unique=True))
        overrides[leaf.id] = {name: value_of(draw, name) for name in names}
    return found, overrides


def effective(flow: Flow, overrides: Mapping[str, Mapping[str, Any]]) -> Flow | None:
    """The flow that would run for a `run` key; None where the call is refused."""
    try:
        models = check_fields(flow, overrides, RULES)
        check_new_models(models, ALLOWED, source="a list")
        return apply_overrides(flow, overrides)
    except APIError:
        return None


@settings(max_examples=60)
@given(cases())
def test_allowed_overrides_change_only_offered_fields_models_and_settings(
    case: tuple[Flow, dict[str, dict[str, Any]]],
) -> None:
    flow, overrides = case
    run = effective(flow, overrides)
    if run is None:
        return
    assert msgspec.structs.replace(run, steps=[]) == msgspec.structs.replace(flow, steps=[])
    assert models_in(run) <= models_in(flow) | {"echo", "a:small", "a:large", "b:tiny"}
    for before, after in zip(leaves(flow.steps), leaves(run.steps), strict=True):
        changed = _changed(before, after)
        assert changed <= set(offered_fields(flow)), changed
        if isinstance(after, LlmStep) and isinstance(before, LlmStep):
            new = {name for name in after.settings if before.settings.get(name) != after.settings[name]}
            assert not new & set(FORBIDDEN_SETTINGS)


@settings(max_examples=60)
@given(cases())
def test_repeating_the_present_values_is_allowed_and_changes_nothing(
    case: tuple[Flow, dict[str, dict[str, Any]]],
) -> None:
    """An override that brings no change is no override."""
    flow, overrides = case
    try:
        run = apply_overrides(flow, overrides)
    except APIError:
        return
    assert effective(run, overrides) == run


def _changed(before: LeafStep, after: LeafStep) -> set[str]:
    fields = before.__struct_fields__
    return {name for name in fields if getattr(before, name) != getattr(after, name)}


def test_every_setting_of_the_library_is_allowed_or_refused_by_name() -> None:
    """One that pydantic-ai or we add must be given its place: with all of them, or among those with care."""
    assert set(CommonSettings.__struct_fields__) == PLAIN | {PRICED} | set(EXTRAS)
    assert not any(EXTRAS[name] & NEVER[name] for name in EXTRAS)


@pytest.mark.parametrize("overridable", ['"code"', "[coode]", "[5]", "[id]", "[name]"])
def test_a_flow_may_offer_existing_fields_alone(overridable: str) -> None:
    text = f"slug: a\noverridable: {overridable}\nsteps: [{{id: a, type: passthrough}}]"
    with pytest.raises(FlowFileError, match="overridable"):
        parse_flow(text)


@pytest.mark.parametrize("kind", get_args(LeafStep))
def test_no_field_of_any_kind_of_step_is_open_unless_the_flow_says_so(kind: type[LeafStep]) -> None:
    flow = msgspec.convert({"slug": "a", "overridable": [], "steps": [smallest_step(kind)]}, Flow)
    for field in msgspec.structs.fields(kind):
        if field.name in ("id", "name"):
            continue
        with pytest.raises(APIError, match=f"list '{field.encode_name}' in the flow's `overridable`"):
            check_fields(flow, {"here": {field.encode_name: "another value"}}, RULES)
