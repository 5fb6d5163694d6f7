"""JSON Schemas taken apart and put together: the ways that one leaves open, and what two have in common.

Pure functions over schemas as plain values. Nothing here makes or checks a value.
"""

from typing import Any

Schema = dict[str, Any]

_TIGHTENED_UP = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
_TIGHTENED_DOWN = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
_NESTED = frozenset({"items", "additionalProperties", "contains"})
_SIDE_BY_SIDE = frozenset({"$ref", "anyOf", "oneOf", "not", "pattern"})

_TYPE_OF_KEYWORD = {
    "properties": "object",
    "required": "object",
    "additionalProperties": "object",
    "minProperties": "object",
    "items": "array",
    "prefixItems": "array",
    "contains": "array",
    "minItems": "array",
    "minLength": "string",
    "pattern": "string",
    "format": "string",
    "minimum": "number",
    "maximum": "number",
    "exclusiveMinimum": "number",
    "exclusiveMaximum": "number",
    "multipleOf": "number",
}


def choices(schema: Schema) -> list[Schema] | None:
    """What `anyOf`, `oneOf`, `if` or a list of types leaves open; None where there is but one way."""
    for key in ("anyOf", "oneOf"):
        if key in schema:
            beside = {name: value for name, value in schema.items() if name != key}
            return [{"allOf": [beside, branch]} for branch in schema[key]]
    if "if" in schema:
        beside = {name: value for name, value in schema.items() if name not in ("if", "then", "else")}
        met = {"allOf": [beside, schema["if"], schema.get("then", True)]}
        return [met, {"allOf": [beside, schema.get("else", True)]}]
    if isinstance(schema.get("type"), list):
        return [{**schema, "type": name} for name in schema["type"]]
    return None


def type_of(schema: Schema) -> str:
    """The one type that a schema without open choices names or implies; "null" where any value would do."""
    implied = next((_TYPE_OF_KEYWORD[key] for key in schema if key in _TYPE_OF_KEYWORD), "null")
    return str(schema.get("type", implied))


def property_of(schema: Schema, name: str) -> Any:
    """The schema of property `name` in an object schema."""
    properties: Schema = schema.get("properties", {})
    return properties[name] if name in properties else schema.get("additionalProperties", True)


def both(one: Any, other: Any) -> Any:
    """A schema that accepts what both accept, as nearly as one level can say it."""
    if one is True or other is True:
        return other if one is True else one
    if not isinstance(one, dict) or not isinstance(other, dict):
        return False
    merged = dict(one)
    beside: list[Any] = [*merged.get("allOf", []), *other.get("allOf", [])]
    for key, value in other.items():
        if key not in merged:
            merged[key] = value
        elif key in _TIGHTENED_UP:
            merged[key] = max(merged[key], value)
        elif key in _TIGHTENED_DOWN:
            merged[key] = min(merged[key], value)
        elif key == "required":
            merged[key] = [*merged[key], *(name for name in value if name not in merged[key])]
        elif key == "properties":
            merged[key] = merged[key] | {
                name: {"allOf": [merged[key][name], part]} if name in merged[key] else part
                for name, part in value.items()
            }
        elif key == "enum":
            merged[key] = [item for item in merged[key] if item in value]
        elif key == "type":
            merged[key] = _common_types(merged[key], value)
        elif key in _NESTED:
            merged[key] = {"allOf": [merged[key], value]}
        elif key in _SIDE_BY_SIDE and value != merged[key]:
            beside.append({key: value})
    if beside:
        merged["allOf"] = beside
    return merged


def _common_types(one: str | list[str], other: str | list[str]) -> str | list[str]:
    left = {one} if isinstance(one, str) else set(one)
    right = {other} if isinstance(other, str) else set(other)
    common = sorted(name for name in left | right if _within(name, left) and _within(name, right))
    return common[0] if len(common) == 1 else common


def _within(name: str, names: set[str]) -> bool:
    return name in names or (name == "integer" and "number" in names)
