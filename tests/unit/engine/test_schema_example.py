"""An object can be made up for the schemas that people write, and it is a small one."""

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.engine.workers.schema_example import smallest_object
from runglass.errors import StepFailure
from runglass.flows.schemas.schema import Unproved


def with_field(schema: Any) -> dict[str, Any]:
    """The schema of an object whose field `f` has this one."""
    return {"properties": {"f": schema}, "required": ["f"]}


def in_field(schema: Any) -> Any:
    return smallest_object(with_field(schema))["f"]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, ""),
        ({"type": "string", "minLength": 2.0}, "aa"),
        ({"type": "integer"}, 0),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "integer", "exclusiveMaximum": 0}, -1),
        ({"type": "integer", "minimum": 1, "multipleOf": 5}, 5),
        ({"type": "number", "minimum": 0.5, "maximum": 0.75}, 0.5),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
        ({"type": "number", "minimum": 0.25, "multipleOf": 0.1}, 0.3),
        ({"type": ["string", "null"]}, ""),
        ({"type": "boolean"}, True),
        ({"type": "array"}, []),
        ({"type": "array", "minItems": 2.0}, [None, None]),
        (
            {"type": "array", "prefixItems": [{"const": 7}], "items": {"type": "string"}, "minItems": 2},
            [7, ""],
        ),
        ({"type": "object", "minProperties": 2, "properties": {"a": {"const": 1}}}, {"a": 1, "p0": None}),
        ({"type": "object", "minProperties": 2.0}, {"p0": None, "p1": None}),
        ({"enum": ["b", "a", "c"]}, "b"),
        ({"const": {"a": [1]}}, {"a": [1]}),
        ({"type": "string", "default": "hello"}, "hello"),
        ({"type": "integer", "default": "not one"}, 0),
        ({"anyOf": [{"type": "integer", "minimum": 10}, {"type": "string"}]}, 10),
        ({"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 1}]}, 0),
        ({"allOf": [{"type": "integer", "minimum": 2}, {"minimum": 5}]}, 5),
        ({"type": "string", "format": "uuid"}, "00000000-0000-0000-0000-000000000000"),
        ({"type": "string", "format": "date"}, "2000-01-01"),
        ({}, None),
        (True, None),
    ],
)
def test_a_value_is_valid_and_small(schema: Any, value: Any) -> None:
    assert in_field(schema) == value


def test_references_and_recursion_come_to_an_end() -> None:
    tree = {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "minLength": 1},
                    "left": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                    "right": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                },
                "required": ["name", "left", "right"],
            }
        },
    }
    assert smallest_object(tree) == {"name": "a", "left": None, "right": None}


def test_parts_of_an_object_schema_add_up() -> None:
    parts = [{"properties": {name: {"type": "integer"}}, "required": [name]} for name in ("a", "b")]
    assert smallest_object({"allOf": parts, "required": ["c"]}) == {"a": 0, "b": 0, "c": None}


def test_the_same_schema_gives_a_fresh_object_each_time() -> None:
    schema = {"properties": {"list": {"const": []}}, "required": ["list"]}
    smallest_object(schema)["list"].append("changed")
    assert smallest_object(schema) == {"list": []}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array"},
        with_field(False),
        with_field({"type": "string", "pattern": "^[A-Z]+$"}),
        with_field({"type": "integer", "minimum": 3, "exclusiveMinimum": 3, "maximum": 3}),
        with_field({"type": "integer", "minimum": 2, "maximum": 1}),
        with_field({"type": "string", "minLength": 10**9}),
        with_field({"$ref": "#/properties/f"}),
        with_field({"$ref": "#"}),
        with_field({"anyOf": [{"$ref": "#"}] * 9}),
    ],
)
def test_a_schema_without_a_value_is_refused_with_the_reason(schema: dict[str, Any]) -> None:
    with pytest.raises(StepFailure, match="could not make up an object") as caught:
        smallest_object(schema)
    assert caught.value.code == "INVALID_OUTPUT"
    assert not caught.value.may_retry


@pytest.mark.parametrize("schema", [{"type": "no-such-type"}, {"$ref": "https://example.com/schema.json"}])
def test_what_is_no_usable_schema_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(StepFailure, match="not a usable JSON Schema") as caught:
        smallest_object(schema)
    assert (caught.value.code, caught.value.may_retry) == ("INVALID_INPUT", False)


@pytest.mark.parametrize("schema", [{"$comment": "x" * 4_096}, {"properties": {"f": {"enum": [0] * 500}}}])
def test_a_large_schema_is_not_searched_where_that_must_be_quick(schema: dict[str, Any]) -> None:
    assert smallest_object(schema) == {}
    with pytest.raises(Unproved):
        smallest_object(schema, quick=True)


def bounded(kind: str, low: int, span: int) -> dict[str, Any]:
    return {"type": kind, "minimum": low, "maximum": low + span}


leaves = st.one_of(
    st.builds(bounded, st.sampled_from(["integer", "number"]), st.integers(-50, 50), st.integers(0, 9)),
    st.builds(
        lambda low, span: {"type": "string", "minLength": low, "maxLength": low + span},
        *[st.integers(0, 5)] * 2,
    ),
    st.builds(lambda items: {"enum": items}, st.lists(st.text(max_size=4) | st.integers(), min_size=1)),
    st.builds(lambda item: {"const": item}, st.none() | st.booleans() | st.text(max_size=4)),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {}]),
)


def grown(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.dictionaries(st.sampled_from("abc"), parts, max_size=3)
    return st.one_of(
        st.builds(lambda fields: {"type": "object", "properties": fields, "required": list(fields)}, names),
        st.builds(
            lambda item, least: {"type": "array", "items": item, "minItems": least}, parts, st.integers(0, 3)
        ),
        st.builds(lambda ways: {"anyOf": ways}, st.lists(parts, min_size=1, max_size=3)),
    )


@given(st.recursive(leaves, grown, max_leaves=12))
def test_a_value_is_found_for_every_satisfiable_schema_of_the_usual_kinds(schema: dict[str, Any]) -> None:
    assert jsonschema_rs.is_valid(schema, in_field(schema))
