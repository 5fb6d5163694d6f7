"""The smallest object that a JSON Schema accepts: what `echo` answers with and calls tools with.

"Smallest" is a preference, validity is not: what leaves here was checked by the validator that also checks
real models. Handles the keywords that people write, and says so where it finds no value. Knows no model.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from itertools import count, islice
from typing import Any

import msgspec

from runglass.engine.model_call import compiled, schema_problems
from runglass.engine.pattern import shortest_match
from runglass.engine.schema_parts import Schema, both, choices, property_of, type_of
from runglass.errors import StepFailure

_DEEPEST = 24
_MOST_STEPS = 5_000
_LARGEST = 4_000
"""No array, string or object of more parts is made up, whatever a schema demands."""

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


def smallest_object(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A fresh object that `schema` accepts. Raises StepFailure INVALID_OUTPUT where none was found."""
    answer: dict[str, Any] = msgspec.json.decode(_smallest_json(msgspec.json.encode(schema)))
    return answer


@lru_cache(maxsize=256)
def _smallest_json(encoded: bytes) -> bytes:
    schema = msgspec.json.decode(encoded)
    compiled(encoded)
    problems = ["no combination of its parts was found"]
    # A `default` is what its author would write, so it is tried first; it need not be valid, though.
    for with_defaults in (True, False):
        try:
            value = _Search(schema, with_defaults=with_defaults).find()
        except _NotFound:
            continue
        problems = schema_problems(value, schema)
        if not problems:
            return msgspec.json.encode(value)
    raise StepFailure(
        "INVALID_OUTPUT",
        f"`echo` could not make up an object for this schema ({problems[0]}); use a real model for this step",
        may_retry=False,
    )


class _NotFound(Exception):
    """No value was found for a schema within the depth and the steps allowed."""


class _Search:
    """One search for an object of schema `root`: shallow ones first, so that recursion comes to an end."""

    def __init__(self, root: Schema, *, with_defaults: bool) -> None:
        self._root = root
        self._with_defaults = with_defaults
        self._steps_left = _MOST_STEPS
        self._frame = {key: root[key] for key in ("$schema", "$defs", "definitions") if key in root}

    def find(self) -> Any:
        for depth in range(1, _DEEPEST):
            try:
                return self._value({"type": "object", "allOf": [self._root]}, depth)
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
        if "enum" in plain:
            return self._smallest_of(iter(plain["enum"]), plain)
        if self._with_defaults and "default" in plain:
            return plain["default"]
        open_ways = choices(plain)
        if open_ways is not None:
            return self._smallest_of(self._one_of_each(open_ways, depth), plain)
        match type_of(plain):
            case "object":
                return self._object(plain, depth)
            case "array":
                return self._array(plain, depth)
            case "string":
                return _string(plain)
            case "integer" | "number":
                return self._number(plain)
            case "boolean":
                return self._smallest_of(iter((True, False)), plain)
            case _:
                return None

    def _one_of_each(self, schemas: list[Schema], depth: int) -> Iterator[Any]:
        for schema in schemas:
            try:
                yield self._value(schema, depth - 1)
            except _NotFound:
                continue

    def _smallest_of(self, candidates: Iterator[Any], schema: Schema) -> Any:
        for candidate in sorted(candidates, key=lambda value: len(msgspec.json.encode(value))):
            if self._accepts(schema, candidate):
                return candidate
        raise _NotFound

    def _accepts(self, schema: Schema, value: Any) -> bool:
        try:
            return compiled(msgspec.json.encode({**schema, **self._frame})).is_valid(value)
        except StepFailure:
            # It points at a place that only the whole schema has; the check of the whole answer decides.
            return True

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        wanted = list(schema.get("required", []))
        for name in wanted:
            if name not in made:
                made[name] = self._value(property_of(schema, name), depth - 1)
                wanted.extend(schema.get("dependentRequired", {}).get(name, []))
        fewest = schema.get("minProperties", 0)
        if fewest > _LARGEST:
            raise _NotFound
        for name in (*schema.get("properties", {}), *(f"p{number}" for number in range(fewest))):
            if len(made) >= fewest:
                break
            if name not in made:
                made[name] = self._value(property_of(schema, name), depth - 1)
        return made

    def _array(self, schema: Schema, depth: int) -> list[Any]:
        items = schema.get("items", {})
        first = schema.get("prefixItems", items if isinstance(items, list) else [])
        rest = schema.get("additionalItems", {}) if isinstance(items, list) else items
        contained = schema.get("minContains", 1) if "contains" in schema else 0
        size = max(schema.get("minItems", 0), contained)
        if size > _LARGEST:
            raise _NotFound
        kinds = [*first[:size], *([rest] * (size - len(first)))]
        for place in range(size - contained, size):
            kinds[place] = {"allOf": [kinds[place], schema["contains"]]}
        if not schema.get("uniqueItems"):
            return [self._value(kind, depth - 1) for kind in kinds]
        made: list[Any] = []
        for kind in kinds:
            made.append(next(value for value in self._variants(kind, depth - 1) if value not in made))
        return made

    def _variants(self, schema: Any, depth: int) -> Iterator[Any]:
        """Different values for `schema`, the smallest first; raises _NotFound when it knows no more."""
        value = self._value(schema, depth)
        yield value
        plain = self._flat(schema)
        others: Iterator[Any] = iter(())
        if "enum" in plain:
            others = iter(plain["enum"])
        elif isinstance(value, bool):
            others = iter((not value,))
        elif isinstance(value, str):
            others = (f"{value}{number}" for number in count())
        elif isinstance(value, int | float):
            others = (value + sign * number for number in count(1) for sign in (1, -1))
        for other in islice(others, _LARGEST):
            if self._accepts(plain, other):
                yield other
        raise _NotFound

    def _number(self, schema: Schema) -> int | float:
        """The number nearest to 0 within the bounds, a whole one where there is one."""
        low, high = (
            _bounds(schema, "minimum", "exclusiveMinimum"),
            _bounds(schema, "maximum", "exclusiveMaximum"),
        )
        nearest = max([Decimal(0), *low])
        if high and min(high) < nearest:
            nearest = min(high)
        grid = Decimal(str(schema.get("multipleOf", 1)))
        rungs = [((nearest / grid).to_integral_value() + step) * grid for step in (0, 1, -1)]
        between = [(max(low) + min(high)) / 2] if low and high else []
        for candidate in (*rungs, nearest, *between):
            value = int(candidate) if candidate == candidate.to_integral_value() else float(candidate)
            if self._accepts(schema, value):
                return value
        raise _NotFound

    def _flat(self, schema: Any) -> Schema:
        """`schema` with its `$ref` and `allOf` folded in."""
        for _ in range(_DEEPEST):
            if schema is True:
                return {}
            if not isinstance(schema, dict):
                raise _NotFound
            if "$ref" in schema:
                beside = {key: value for key, value in schema.items() if key != "$ref"}
                schema = both(beside, self._at(schema["$ref"]))
            elif "allOf" in schema:
                parts = schema["allOf"]
                schema = {key: value for key, value in schema.items() if key != "allOf"}
                for part in parts:
                    schema = both(schema, part)
            else:
                return schema
        raise _NotFound

    def _at(self, reference: str) -> Any:
        """What a reference to a place in the same schema stands for."""
        place: Any = self._root
        if reference == "#":
            return place
        if not reference.startswith("#/"):
            raise _NotFound
        for part in reference[2:].split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(place, list) and key.isdigit() and int(key) < len(place):
                place = place[int(key)]
            elif isinstance(place, dict) and key in place:
                place = place[key]
            else:
                raise _NotFound
        return place


def _string(schema: Schema) -> str:
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength")
    if shortest > _LARGEST:
        raise _NotFound
    if "pattern" in schema:
        matching = shortest_match(schema["pattern"], shortest=shortest, longest=longest)
        if matching is None:
            raise _NotFound
        return matching
    return _OF_FORMAT.get(schema.get("format", ""), "").ljust(shortest, "a")


def _bounds(schema: Schema, *keys: str) -> list[Decimal]:
    # Draft 4 writes `exclusiveMinimum: true` beside `minimum`; the check of each candidate minds that.
    values = [schema[key] for key in keys if key in schema]
    return [Decimal(str(value)) for value in values if not isinstance(value, bool)]
