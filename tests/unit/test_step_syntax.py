"""The syntax of a step's field is declared once, at its struct; all modules that read fields agree."""

from typing import Any, get_args

import msgspec
import pytest

from runglass.engine.steps.scope import mentioned_outputs
from runglass.flows.flow import Step, Syntax
from runglass.flows.parser import flow_rules
from runglass.flows.references import unmet_references
from runglass.flows.syntax import fields_with_syntax, syntaxes
from tests.flows import smallest_step

KINDS = get_args(Step)

MALFORMED: dict[Syntax, tuple[Any, str]] = {
    "template": ("{{ x", "template is malformed"),
    "templates": ({"a": ["{{ x"]}, "template is malformed"),
    "code": ("return (", "the code is not valid Python"),
    "expression": ("x +", "the expression is not valid Python"),
    "variable": ("two words", "cannot be a name in Python"),
    "model": ("nameless", "names no provider"),
    "schema": ({"type": "objekt"}, "not a valid JSON Schema"),
}
REFERS: dict[Syntax, Any] = {
    "template": "{{ steps.gone.text }}",
    "templates": {"a": [{"b": "{{ steps.gone.text }}"}]},
    "code": "return steps['gone']",
    "expression": "steps['gone']['items']",
}
FIELDS = {
    f"{kind.__struct_config__.tag}-{field.name}": (kind, field)
    for kind in KINDS
    for field in fields_with_syntax(kind)
}
REFERRING = [name for name, (_, field) in FIELDS.items() if field.syntax in REFERS]


def test_every_kind_of_step_is_looked_into() -> None:
    assert len(KINDS) >= 7
    assert all("input" in {field.name for field in fields_with_syntax(kind)} for kind in KINDS)
    assert {field.syntax for _, field in FIELDS.values()} == set(get_args(Syntax))


@pytest.mark.parametrize("name", FIELDS)
def test_a_mistake_in_a_field_is_found(name: str) -> None:
    kind, field = FIELDS[name]
    value, message = MALFORMED[field.syntax]
    findings = list(flow_rules(1000).step(smallest_step(kind, **{field.name: value}), ()))
    assert any(message in each.message and each.path[0] == field.name for each in findings), findings


@pytest.mark.parametrize("name", REFERRING)
def test_the_check_of_a_flow_and_the_engine_see_the_same_references(name: str) -> None:
    kind, field = FIELDS[name]
    data = smallest_step(kind, **{field.name: REFERS[field.syntax]})
    (finding,) = unmet_references({"slug": "a", "steps": [data]})
    assert finding.path[:3] == ("steps", 0, field.name)
    assert "no step 'gone'" in finding.message
    assert mentioned_outputs(msgspec.convert(data, kind)) == frozenset({"gone"})


@pytest.mark.parametrize("kind", ["lllm", None, [], {}])
def test_of_an_unknown_kind_the_input_is_looked_into(kind: Any) -> None:
    assert syntaxes(kind) == {"input": "templates"}
