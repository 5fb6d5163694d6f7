"""Defaults of a schema: what is filled in, what is left alone, and that no schema makes it take for ever."""

from typing import Any

import pytest

from runglass.flows.schemas.defaults import TooManyDefaults, fill_defaults

PLACE = {"type": "object", "properties": {"city": {"default": "Oslo"}, "zip": {"type": "string"}}}


@pytest.mark.parametrize(
    ("properties", "value", "filled"),
    [
        ({"a": {"default": 1}, "b": {"default": [2]}}, {}, {"a": 1, "b": [2]}),
        ({"a": {"default": 1}}, {"a": 5, "c": 6}, {"a": 5, "c": 6}),
        ({"a": {"default": 1}}, {"a": None}, {"a": None}),
        ({"at": PLACE}, {"at": {"zip": "1"}}, {"at": {"zip": "1", "city": "Oslo"}}),
        ({"at": PLACE}, {}, {}),
        (
            {"all": {"type": "array", "items": PLACE}},
            {"all": [{}, 3, {"city": "Rome"}]},
            {"all": [{"city": "Oslo"}, 3, {"city": "Rome"}]},
        ),
        ({"at": {"$ref": "#/$defs/place"}}, {"at": {}}, {"at": {"city": "Oslo"}}),
        ({"n": {"$ref": "#/$defs/count"}}, {}, {"n": 3}),
        (
            {"at": {"$ref": "#/$defs/place", "properties": {"zip": {"default": "9"}}}},
            {"at": {}},
            {"at": {"city": "Oslo", "zip": "9"}},
        ),
        ({"a": {"$ref": "#/nowhere"}, "b": True}, {}, {}),
    ],
)
def test_missing_members_get_their_defaults(
    properties: dict[str, Any], value: dict[str, Any], filled: dict[str, Any]
) -> None:
    schema = {"properties": properties, "$defs": {"place": PLACE, "count": {"default": 3}}}
    assert fill_defaults(value, schema) == filled


def test_filling_changes_neither_the_given_value_nor_the_schema() -> None:
    given: dict[str, Any] = {"at": {}, "all": [{}]}
    schema = {"properties": {"at": PLACE, "all": {"items": PLACE}, "new": {**PLACE, "default": {}}}}
    first = fill_defaults(given, schema)
    first["new"]["city"] = first["at"]["city"] = "changed"
    assert given == {"at": {}, "all": [{}]}
    assert fill_defaults(given, schema)["new"] == {"city": "Oslo"}


def test_a_default_within_itself_is_filled_once() -> None:
    node = {"properties": {"next": {"$ref": "#/$defs/node", "default": {}}}}
    schema = {"properties": {"first": {"$ref": "#/$defs/node"}}, "$defs": {"node": node}}
    assert fill_defaults({"first": {}}, schema) == {"first": {"next": {"next": {}}}}
    assert fill_defaults({"first": {}}, {"properties": {"first": {"$ref": "#/properties/first"}}}) == {
        "first": {}
    }


def test_defaults_that_double_are_refused_soon() -> None:
    levels: dict[str, Any] = {
        f"d{level}": {
            "default": {"text": "x" * 10_000},
            "properties": {side: {"$ref": f"#/$defs/d{level + 1}"} for side in ("left", "right")},
        }
        for level in range(60)
    }
    schema = {"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": {**levels, "d60": {"default": 1}}}
    with pytest.raises(TooManyDefaults, match="4,194,304 bytes"):
        fill_defaults({}, schema)


def test_alternatives_that_double_are_not_walked() -> None:
    levels: dict[str, Any] = {
        f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(60)
    }
    schema = {"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": {**levels, "d60": {"default": 1}}}
    assert fill_defaults({"a": {}}, schema) == {"a": {}}
