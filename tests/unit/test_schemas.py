"""Schemas are compiled once, their mistakes told with a place, and none keeps a validator busy for ever."""

from typing import Any

import pytest

from runglass.flows.schemas.cost import target
from runglass.flows.schemas.schema import MAX_REFERENCES, compile_schema, mistakes

SCHEMA = {
    "type": "object",
    "properties": {"a": {"items": {"type": "string"}}, "b": {"type": "integer"}},
    "required": ["b"],
}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": ["x"], "b": 1}, []),
        ({"a": ["x", 2], "b": 1}, ["`a[1]`: expected a string, found 2"]),
        ({}, ["`b` is missing"]),
        (
            {"a": [1, 2, 3, 4, 5, 6], "b": 1},
            [f"`a[{n}]`: expected a string, found {n + 1}" for n in range(5)],
        ),
    ],
)
def test_mistakes_name_their_place(value: Any, said: list[str]) -> None:
    assert mistakes(value, SCHEMA) == said


def doubled(times: int) -> dict[str, Any]:
    """A schema in which each definition refers to the next twice."""
    steps = {f"n{n}": {"allOf": [{"$ref": f"#/$defs/n{n + 1}"}] * 2} for n in range(times)}
    return {"$ref": "#/$defs/n0", "$defs": {**steps, f"n{times}": {"type": "object"}}}


def test_references_that_double_each_time_are_refused() -> None:
    assert mistakes({}, doubled(8)) == []
    for times in (14, 500):
        with pytest.raises(ValueError, match=f"more than {MAX_REFERENCES:,} references"):
            compile_schema(doubled(times))


def test_references_that_lead_back_are_fine() -> None:
    tree = {"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}, "additionalProperties": False}
    assert mistakes({"left": {"right": {}}}, tree) == []
    assert mistakes({"left": {"x": 1}}, tree) == ["`left.x`: unknown field 'x'"]


def test_a_reference_leads_to_its_place() -> None:
    schema = {"$defs": {"a/b": [{"~": 1}]}}
    assert target(schema, "#/$defs/a~1b/0/~0") == 1
    for nowhere in ("#/x", "#/$defs/a~1b/7", "#/$defs/a~1b/0/~0/x", "other.json"):
        with pytest.raises(LookupError):
            target(schema, nowhere)
