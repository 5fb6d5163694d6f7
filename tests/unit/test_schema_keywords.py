"""Keywords of a schema that do nothing, and that no other is taken for one."""

from typing import Any

import pytest

from runglass.flows.schemas.keywords import idle_keywords


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
