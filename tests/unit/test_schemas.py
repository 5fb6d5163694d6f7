"""Schemas: mistakes and idle keywords in them, what checking by them costs, and their defaults."""

from typing import Any

import pytest

from runglass.flows.schemas.cost import target
from runglass.flows.schemas.defaults import TooManyDefaults, fill_defaults
from runglass.flows.schemas.keywords import idle_keywords
from runglass.flows.schemas.schema import (
    MAX_REFERENCES,
    QUICK_WORK,
    Unproved,
    compile_schema,
    findings_in,
    prove_quick,
    sentence,
)
from tests.flows import doubling


def doubled(times: int) -> dict[str, Any]:
    """A schema in which each definition refers to the next twice."""
    steps = {f"n{n}": {"allOf": [{"$ref": f"#/$defs/n{n + 1}"}] * 2} for n in range(times)}
    return {"$ref": "#/$defs/n0", "$defs": {**steps, f"n{times}": {"type": "object"}}}


def test_references_that_double_each_time_are_refused() -> None:
    assert list(findings_in({}, doubled(8))) == []
    for times in (14, 500):
        with pytest.raises(ValueError, match=f"more than {MAX_REFERENCES:,} references"):
            compile_schema(doubled(times))


def test_references_that_lead_back_are_fine() -> None:
    tree = {"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}, "additionalProperties": False}
    assert list(findings_in({"left": {"right": {}}}, tree)) == []
    assert list(map(sentence, findings_in({"left": {"x": 1}}, tree))) == ["`left.x`: unknown field 'x'"]


def test_a_reference_leads_to_its_place() -> None:
    schema = {"$defs": {"a/b": [{"~": 1}]}}
    assert target(schema, "#/$defs/a~1b/0/~0") == 1
    for nowhere in ("#/x", "#/$defs/a~1b/7", "#/$defs/a~1b/0/~0/x", "other.json"):
        with pytest.raises(LookupError):
            target(schema, nowhere)


def idle(schema: Any) -> list[tuple[str, tuple[str | int, ...]]]:
    findings = list(idle_keywords(schema, ()))
    assert all(finding.is_warning and finding.at_key for finding in findings)
    return [(finding.message, finding.path) for finding in findings]


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"require": []}, "there is no keyword 'require': it does nothing; did you mean 'required'?"),
        ({"zzz": 1}, "there is no keyword 'zzz': it does nothing"),
        (
            {"type": "integer", "minLength": 1},
            "`minLength` does nothing beside `type: integer`; it is for type string",
        ),
        (
            {"type": ["string", "null"], "minimum": 1},
            "`minimum` does nothing beside `type: string or null`; it is for type number",
        ),
        ({"then": {}}, "`then` does nothing without `if`"),
    ],
)
def test_a_keyword_without_effect_gets_a_warning(schema: dict[str, Any], said: str) -> None:
    assert idle(schema) == [(said, (next(name for name in schema if name != "type"),))]


@pytest.mark.parametrize(
    "schema",
    [
        None,
        True,
        {"type": "integer", "minimum": 1},
        {"type": ["object", "string"], "minLength": 1, "required": []},
        {"minLength": 1, "x-order": 1, "if": {}, "then": {}, "example": 1},
        {"properties": {"require": {}, "zzz": True}, "enum": [{"zzz": 1}], "default": {"zzz": 1}},
        {"$schema": "https://example.com/own", "zzz": 1},
    ],
)
def test_a_keyword_with_an_effect_gets_no_warning(schema: Any) -> None:
    assert idle(schema) == []


def test_idle_keywords_are_found_wherever_a_schema_may_stand() -> None:
    wrong = {"zzz": 1}
    schema = {
        "properties": {"a": wrong},
        "$defs": {"b": wrong},
        "items": {"not": wrong},
        "allOf": [wrong],
        "additionalProperties": wrong,
    }
    assert [path for _, path in idle(schema)] == [
        ("properties", "a", "zzz"),
        ("$defs", "b", "zzz"),
        ("items", "not", "zzz"),
        ("allOf", 0, "zzz"),
        ("additionalProperties", "zzz"),
    ]


USUAL = {
    "type": "object",
    "$defs": {
        "row": {"type": "object", "properties": {"id": {"type": "string", "pattern": "^[a-z]{1,900}$"}}}
    },
    "properties": {"rows": {"type": "array", "items": {"$ref": "#/$defs/row"}}, "$defs": {"minLength": 1}},
    "required": ["rows"],
}
HIDDEN = {"properties": {"$defs": {"properties": {"x": {"$ref": "#/properties/$defs"}}}}}
"""A field that is only named like the place of definitions."""


@pytest.mark.parametrize(
    "schema",
    [
        doubling(3),
        {"$ref": "#"},
        HIDDEN,
        {"properties": {"a": {"$ref": "#/properties/a/properties/b"}}},
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        {"$ref": "#n", "$defs": {"n": {"$anchor": "n"}}},
        {"$defs": {"n": {"$id": "other"}}, "$ref": "#/$defs/n"},
        {"format": "regex"},
        {"pattern": "(?=a)(a|a)*c"},
        {"patternProperties": {"(a)\\1": {}}},
        {"pattern": "(.{1,999}){1,999}"},
        {"enum": list(range(20_001))},
        # A validator finds `n`, which leads back to itself, where this place is spelled otherwise.
        {"$ref": "#/$defs/%6E", "$defs": {"%6E": True, "n": {"items": {"$ref": "#/$defs/n"}}}},
        # What lies in a part with an `$id` has its references looked up in that part.
        {"$ref": "#/$defs/a/not", "$defs": {"a": {"$id": "b:", "not": {"$ref": "#/$defs/n"}}, "n": True}},
        {"pattern": "(?x) ([ab]{ 999}){ 999}"},
        {"pattern": "(?sx-u) ([ab]{ 999}){ 999}"},
        {"pattern": "a{99}{99}"},
        {"pattern": "(a{0000000000999}){0000000000999}"},
        {"pattern": "[éжb中]{500}"},
        {"allOf": [{"pattern": f"\\p{{L}}|{n}"} for n in range(40)]},
    ],
)
def test_a_schema_that_may_take_long_is_not_proved_quick(schema: dict[str, Any]) -> None:
    with pytest.raises(Unproved):
        prove_quick(schema)


def test_the_usual_schema_is_quick_up_to_a_size_of_its_values() -> None:
    cost = prove_quick(USUAL, size_bytes=1000)
    assert cost.parts > 15
    with pytest.raises(Unproved):
        prove_quick(USUAL, size_bytes=QUICK_WORK)


def test_exact_division_counts_for_more_than_a_comparison() -> None:
    """50,000 numbers like 1e300 by 1e-300 held everybody up for more than a second."""
    size_bytes = 6 * 50_000
    assert prove_quick({"items": {"minimum": 1e-300}}, size_bytes=20_000)
    with pytest.raises(Unproved):
        prove_quick({"items": {"multipleOf": 1e-300}}, size_bytes=size_bytes)
    with pytest.raises(Unproved):
        prove_quick({"items": {"multipleOf": 3}}, size_bytes=size_bytes)


def test_lists_of_unique_items_are_quick_as_long_as_they_are_short() -> None:
    # The validator's hashes of all these integers are alike, so each is compared with each.
    schema = {"properties": {"ids": {"type": "array", "uniqueItems": True}}}
    prove_quick(schema, size_bytes=4_000)
    prove_quick({"uniqueItems": False}, size_bytes=100_000)
    with pytest.raises(Unproved):
        findings_in({"ids": list(range(2**63, 2**63 + 1_000))}, schema, quick_bytes=20_000)
    with pytest.raises(Unproved):
        prove_quick({"allOf": [{"$ref": "#/$defs/a"}] * 50, "$defs": {"a": schema}}, size_bytes=4_000)


def test_a_value_with_too_many_mistakes_is_left_to_a_process() -> None:
    schema, value = {"items": {"type": "string"}}, list(range(3000))
    with pytest.raises(Unproved):
        findings_in(value, schema, quick_bytes=3 * len(value))
    assert len(list(findings_in(value[:3], schema, quick_bytes=9))) == 3
    # Each name of `required` may be a mistake, and no value of an `enum`.
    with pytest.raises(Unproved):
        findings_in({}, {"required": list(map(str, value))}, quick_bytes=2)
    assert len(list(findings_in({"a": -1}, {"properties": {"a": {"enum": value}}}, quick_bytes=8))) == 1
    # In a process every mistake is found, up to a number from which on the first does.
    assert len(list(findings_in(value, schema))) == 3000
    assert len(list(findings_in(value * 100, schema))) == 1


PLACE = {"type": "object", "properties": {"city": {"default": "Oslo"}, "zip": {"type": "string"}}}


@pytest.mark.parametrize(
    ("properties", "value", "filled"),
    [
        ({"a": {"default": 1}, "b": {"default": [2]}}, {}, {"a": 1, "b": [2]}),
        ({"a": {"default": 1}}, {"a": 5, "c": 6}, {"a": 5, "c": 6}),
        ({"a": {"default": 1}}, {"a": None}, {"a": None}),
        ({"at": PLACE}, {"at": {"zip": "1"}}, {"at": {"zip": "1", "city": "Oslo"}}),
        ({"at": PLACE}, {}, {}),
        ({"at": PLACE}, {"at": [1]}, {"at": [1]}),
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
    itself = {"properties": {"first": {"$ref": "#/properties/first"}}}
    assert fill_defaults({"first": {}}, itself) == {"first": {}}


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
    assert fill_defaults({"a": {}}, doubled(60) | {"properties": {"a": {"$ref": "#/$defs/n0"}}}) == {"a": {}}
