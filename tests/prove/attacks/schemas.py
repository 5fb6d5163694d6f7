"""Schemas that cost far more than their size: as overrides of a run, and as schemas of a flow's inputs."""

from collections.abc import Callable
from typing import Any

from tests.prove.attacking.attack import COPY, Family
from tests.prove.attacking.field import Field

FAMILY = Family("schemas")

R = {"$ref": "#/$defs/n"}
Schema = dict[str, Any]


def nested(depth: int, key: str = "x", inner: Any = 1) -> Any:
    for _ in range(depth):
        inner = {key: inner}
    return inner


def tree(node: Schema, *, depth: int = 40) -> Schema:
    """A schema whose `default`, which is checked against it, makes a validator branch at each level."""
    return {**_required(R), "$defs": {"n": node}, "default": {"a": nested(depth)}}


def twice(how: str) -> Schema:
    """A tree that looks at each level twice, by a keyword that takes a list."""
    return tree({"type": "object", "properties": {"x": {how: [R, R]}}})


def with_default(schema: Schema, value: Any) -> Schema:
    """An object with one member that has to fit `schema`, and a default that is checked against it."""
    return {**_required(schema), "default": {"a": value}}


BOMBS: dict[str, Callable[[], Schema]] = {
    "any-of-tree": lambda: twice("anyOf"),
    "one-of-tree": lambda: twice("oneOf"),
    "not-tree": lambda: tree({"properties": {"x": {"allOf": [{"not": {"not": R}}, {"not": {"not": R}}]}}}),
    "if-then-else-tree": lambda: tree({"properties": {"x": {"if": R, "then": R, "else": R}}}),
    "dependent-schemas-tree": lambda: tree(
        {"properties": {"x": R}, "dependentSchemas": {"x": {"properties": {"x": R}}}}
    ),
    "dynamic-ref-tree": lambda: {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$dynamicAnchor": "n",
        "type": "object",
        "properties": {"x": {"allOf": [{"$dynamicRef": "#n"}, {"$dynamicRef": "#n"}]}},
        "required": ["x"],
        "default": nested(40, inner={"x": {}}),
    },
    "unevaluated-tree": lambda: tree(
        {"allOf": [{"properties": {"x": R}}, {"properties": {"x": R}}], "unevaluatedProperties": False}
    ),
    "backtracking-pattern": lambda: with_default(
        {"type": "array", "items": {"pattern": "^(?:(a|a|aa)*(?=c)|a*b)$"}}, ["a" * 13 + "b"] * 1000
    ),
    "pattern-properties": lambda: with_default(
        {"patternProperties": {f"^(a+)+{n}$": {} for n in range(20)}},
        {"a" * 30 + str(n): 1 for n in range(99)},
    ),
    "property-names": lambda: with_default(
        {"propertyNames": {"pattern": "^(?=(a+)+$)(a|aa)+$"}}, {"a" * 26 + f"!{n}": 1 for n in range(500)}
    ),
    "unique-items": lambda: with_default({"uniqueItems": True}, [{"k": [n]} for n in range(60_000)]),
    "contains": lambda: with_default(
        {"contains": {"anyOf": [{"const": -n} for n in range(500)]}, "minContains": 9000}, [*range(9000)]
    ),
    "enum-huge": lambda: with_default(
        {"items": {"enum": [{"v": n} for n in range(60_000)]}}, [{"v": -n} for n in range(60_000)]
    ),
    "const-huge": lambda: with_default({"const": ["x" * 20] * 90_000}, ["x" * 20] * 89_999 + ["y"]),
    "deep-schema": lambda: _deep(90),
    "self-reference": lambda: {"$defs": {"n": R}, **R},
    "reference-ring": lambda: {
        **_required({"$ref": "#/$defs/n0"}),
        "$defs": {f"n{n}": {"$ref": f"#/$defs/n{(n + 1) % 10_000}"} for n in range(10_000)},
    },
    # What echo is to fill: more than it makes up, and as much as it does in each part.
    "smallest-huge": lambda: _required(_array({"type": "string", "minLength": 10**9}, 10**9)),
    "smallest-product": lambda: _required(_array(_array({"type": "string", "minLength": 4000}))),
    "required-names": lambda: {"type": "object", "required": [f"name-{n}" for n in range(100_000)]},
    "counted-pattern": lambda: with_default(
        {"pattern": "^((((a{1,99}){1,99}){1,99}){1,99}){1,99}$"}, "a" * 5000
    ),
    "multiple-of": lambda: with_default(
        {"items": {"multipleOf": 1e-300}}, [1e300 + n for n in range(50_000)]
    ),
}


def _required(schema: Schema) -> Schema:
    return {"type": "object", "properties": {"a": schema}, "required": ["a"]}


def _array(items: Schema, count: int = 4000) -> Schema:
    return {"type": "array", "minItems": count, "items": items}


def _deep(levels: int) -> Schema:
    schema: Schema = {"type": "object"}
    for _ in range(levels):
        siblings = {f"s{n}": {"type": "object", "default": {}} for n in range(10)}
        schema = {"type": "object", "properties": {"x": schema, **siblings}, "required": ["x", *siblings]}
    return schema


async def _overriding(field: Field, make: Callable[[], Schema]) -> None:
    """The schema as an override, a few a second, so that a worker that it takes is wanted again."""
    schema = make()
    await field.flood(lambda _: field.override({"output_schema": schema}), beside=3, per_s=6)


@FAMILY.attack("run")
async def all_of_tree(field: Field) -> None:
    """550 bytes: allOf with the same reference twice over a default 40 levels deep, 2^40 steps."""
    await field.override({"output_schema": twice("allOf")}, timeout_s=field.left_s)


@FAMILY.attack("run")
async def distinct_schemas(field: Field) -> None:
    """24 schemas of 2.1 MB, each another one, so that a cache keeps them all."""
    for number in range(24):
        names = {f"name-{number}-{n}": {"type": "string", "maxLength": n} for n in range(40_000)}
        await field.override({"output_schema": {"type": "object", "properties": names}})


FAMILY.each("run", _overriding, BOMBS)


async def _pushed(field: Field, made: tuple[Schema, Schema]) -> None:
    """The schema as that of a flow's inputs, which is run with these parameters."""
    inputs, parameters = made
    slug = await field.publish("typed", COPY, inputs=inputs)
    await field.flood(lambda _: field.execute(slug, {"parameters": parameters}), beside=3, per_s=8)


FILLED = {"type": "object", "properties": {"fill": {"default": "x" * 900_000}}}
INPUTS: dict[str, tuple[Schema, Schema]] = {
    "inputs-tree": ({**twice("allOf"), "default": {}}, {"a": nested(40)}),
    "inputs-defaults": (
        {"type": "object", "properties": {"rows": {"type": "array", "items": FILLED}}},
        {"rows": [{} for _ in range(100)]},
    ),
}
FAMILY.each("admin", _pushed, INPUTS)
