"""A value and a JSON Schema: what is wrong with the one, and a small object that the other accepts.

`echo` answers and calls tools with such an object.

Handles usual schemas, and says so where it cannot; an example that leaves here was checked by the validator
that also checks real models. Knows no model.
"""

from collections.abc import Mapping
from contextlib import suppress
from decimal import ROUND_CEILING, Decimal
from itertools import islice
from typing import Any

import jsonschema_rs
import msgspec

from runglass.errors import StepFailure
from runglass.flows.schemas.cost import target
from runglass.flows.schemas.schema import Schema, Unproved, findings_in, prove_quick, sentence
from runglass.support.byte_cache import ByteCache

_MOST_SENTENCES = 5


def schema_problems(value: Any, schema: dict[str, Any], *, quick_bytes: int | None = None) -> list[str]:
    """The mistakes in `value`, at most five located sentences; empty where `schema` accepts it.

    Raises StepFailure where `schema` itself is no JSON Schema. Never fetches a remote reference. With
    `quick_bytes`, the size of the value as JSON, raises Unproved where it may take longer than milliseconds.
    """
    try:
        found = findings_in(value, schema, quick_bytes=quick_bytes)
        return [sentence(finding) for finding in islice(found, _MOST_SENTENCES)]
    except (ValueError, jsonschema_rs.ReferencingError) as problem:
        raise StepFailure(
            "INVALID_INPUT", f"not a usable JSON Schema: {str(problem)[:500]}", may_retry=False
        ) from problem


_DEEPEST = 24
_MOST_STEPS = 5_000
_LARGEST = 4_000
"""No array, string or object of more parts is made up, whatever a schema demands."""

_QUICK_BYTES = 4 * 1024
_QUICK_PARTS = 500
"""A search through a larger schema takes more than some milliseconds: it merges parts at every step."""

_OF_FORMAT = {
    "date": "2000-01-01",
    "date-time": "2000-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "PT0S",
    "email": "a@example.com",
    "hostname": "a.example",
    "ipv4": "0.0.0.0",
    "ipv6": "::",
    "uri": "a:",
    "uuid": "00000000-0000-0000-0000-000000000000",
}
_IMPLIED = {"properties": "object", "required": "object", "items": "array", "minItems": "array"}


def smallest_object(schema: Mapping[str, Any], *, quick: bool = False) -> dict[str, Any]:
    """A fresh object that `schema` accepts. Raises StepFailure INVALID_OUTPUT where none was found.

    With `quick` only for a schema of which it is proved that the search takes milliseconds, else Unproved.
    """
    encoded = msgspec.json.encode(schema)
    if quick and (len(encoded) > _QUICK_BYTES or prove_quick(schema).parts > _QUICK_PARTS):
        raise Unproved
    answer: dict[str, Any] = msgspec.json.decode(_smallest_json(encoded))
    return answer


def _search(encoded: bytes) -> bytes:
    schema = msgspec.json.decode(encoded)
    problems = schema_problems({}, schema)
    if not problems:
        return b"{}"
    # A `default` is the value of the author, so it is tried first; it need not be valid, though.
    for with_defaults in (True, False):
        try:
            value = _Search(schema, with_defaults=with_defaults).find()
        except _NotFound:
            continue
        if not isinstance(value, dict):
            continue
        problems = schema_problems(value, schema)
        if not problems:
            return msgspec.json.encode(value)
    raise StepFailure(
        "INVALID_OUTPUT",
        f"`echo` could not make up an object for this schema ({problems[0]}); use a real model for this step",
        may_retry=False,
    )


_smallest_json = ByteCache(_search, times=2, share=0.02)


class _NotFound(Exception):
    """No value was found for a schema within the depth and the steps allowed."""


class _Search:
    """One search for an object of schema `root`: shallow ones first, so that recursion comes to an end."""

    def __init__(self, root: Schema, *, with_defaults: bool) -> None:
        self._root = root
        self._with_defaults = with_defaults
        self._steps_left = _MOST_STEPS

    def find(self) -> Any:
        for depth in range(1, _DEEPEST):
            try:
                return self._value({"type": "object", **self._root}, depth)
            except _NotFound:
                if self._steps_left <= 0:
                    raise
        raise _NotFound

    def _value(self, schema: Any, depth: int) -> Any:
        self._steps_left -= 1
        if depth <= 0 or self._steps_left <= 0:
            raise _NotFound
        plain = self._flat(schema)
        if "const" in plain:
            return plain["const"]
        if plain.get("enum"):
            return plain["enum"][0]
        if self._with_defaults and "default" in plain:
            return plain["default"]
        if branches := plain.get("anyOf") or plain.get("oneOf"):
            beside = {key: value for key, value in plain.items() if key not in ("anyOf", "oneOf")}
            for branch in branches:
                with suppress(_NotFound):
                    return self._value(_merged(beside, branch), depth - 1)
            raise _NotFound
        named = plain.get("type") or next((_IMPLIED[key] for key in plain if key in _IMPLIED), None)
        match named[0] if isinstance(named, list) else named:
            case "object":
                return self._object(plain, depth)
            case "array":
                size = _within_bounds(plain.get("minItems", 0))
                first = plain.get("prefixItems", [])[:size]
                kinds = [*first, *([plain.get("items", True)] * (size - len(first)))]
                return [self._value(kind, depth - 1) for kind in kinds]
            case "string":
                text = _OF_FORMAT.get(plain.get("format", ""), "")
                return text.ljust(_within_bounds(plain.get("minLength", 0)), "a")
            case "integer" | "number" as kind:
                return _number(plain, kind)
            case "boolean":
                return True
            case _:
                return None

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        beyond = schema.get("additionalProperties", True)
        # JSON Schema takes `2.0` for a size.
        fewest = int(schema.get("minProperties", 0))
        names = list(dict.fromkeys(schema.get("required", [])))
        if fewest > len(names):
            spare = [*properties, *(f"p{number}" for number in range(_within_bounds(fewest)))]
            names = list(dict.fromkeys([*names, *spare]))[:fewest]
        return {name: self._value(properties.get(name, beyond), depth - 1) for name in names}

    def _flat(self, schema: Any) -> Schema:
        """`schema` with its `$ref` and `allOf` folded in."""
        for _ in range(_DEEPEST):
            if "$ref" in (schema := _as_object(schema)):
                beside = {key: value for key, value in schema.items() if key != "$ref"}
                try:
                    schema = _merged(target(self._root, schema["$ref"]), beside)
                except LookupError as error:
                    raise _NotFound from error
            elif "allOf" in schema:
                parts = schema["allOf"]
                schema = {key: value for key, value in schema.items() if key != "allOf"}
                for part in parts:
                    schema = _merged(schema, part)
            else:
                return schema
        raise _NotFound


def _as_object(schema: Any) -> Schema:
    if schema is True:
        return {}
    if isinstance(schema, dict):
        return schema
    raise _NotFound


def _merged(one: Any, other: Any) -> Schema:
    """One schema in place of two: the second wins but for fields, which add up. Good enough to be tried."""
    left, right = _as_object(one), _as_object(other)
    merged = left | right
    for key in ("properties", "required", "allOf"):
        if key in left and key in right:
            merged[key] = left[key] | right[key] if key == "properties" else [*left[key], *right[key]]
    return merged


def _within_bounds(size: float) -> int:
    if size > _LARGEST:
        raise _NotFound
    return int(size)


def _number(schema: Schema, kind: str) -> int | float:
    """The number nearest to 0 within the bounds, a whole one where there is one."""

    def bound(key: str, none: str) -> Decimal:
        # Draft 4 writes `exclusiveMinimum: true` beside `minimum`.
        value = schema.get(key)
        return Decimal(none if value is None or isinstance(value, bool) else str(value))

    step = Decimal(str(schema.get("multipleOf", 1)))
    above, below = bound("exclusiveMinimum", "-Infinity"), bound("exclusiveMaximum", "Infinity")
    low = max(above, bound("minimum", "-Infinity"))
    high = min(below, bound("maximum", "Infinity"))
    nearest = min(max(Decimal(0), low), high)
    rung = (nearest / step).to_integral_value(ROUND_CEILING) * step
    candidates = [rung, rung + step, rung - step]
    if kind == "number" and "multipleOf" not in schema:
        candidates += [nearest, *([(low + high) / 2] if low.is_finite() and high.is_finite() else [])]
    for value in candidates:
        if low <= value <= high and value not in (above, below):
            return int(value) if value == value.to_integral_value() else float(value)
    raise _NotFound
