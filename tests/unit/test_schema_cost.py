"""A schema is called quick only where its work is bounded: what can double, go back or grow is not."""

from typing import Any

import pytest

from runglass.flows.schemas.schema import QUICK_WORK, Unproved, errors_in, prove_quick
from tests.flows import doubling

USUAL = {
    "type": "object",
    "$defs": {
        "row": {"type": "object", "properties": {"id": {"type": "string", "pattern": "^[a-z]{1,20}$"}}}
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
        {"pattern": "[éжb中]{5000}"},
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
        errors_in({"ids": list(range(2**63, 2**63 + 1_000))}, schema, quick_bytes=20_000)
    with pytest.raises(Unproved):
        prove_quick({"allOf": [{"$ref": "#/$defs/a"}] * 50, "$defs": {"a": schema}}, size_bytes=4_000)


def test_a_value_with_too_many_mistakes_is_left_to_a_process() -> None:
    schema, value = {"items": {"type": "string"}}, list(range(3000))
    with pytest.raises(Unproved):
        errors_in(value, schema, quick_bytes=3 * len(value))
    assert len(list(errors_in(value[:3], schema, quick_bytes=9))) == 3
    # In a process every mistake is found, up to a number from which on the first does.
    assert len(list(errors_in(value, schema))) == 3000
    assert len(list(errors_in(value * 100, schema))) == 1
