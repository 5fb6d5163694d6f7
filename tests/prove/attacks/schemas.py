"""Schemas that cost far more than their size: as overrides of a run, and as schemas of a flow's inputs."""

import functools
from collections.abc import Callable
from typing import Any

from tests.prove.attacking.attack import Family
from tests.prove.attacking.field import Field

FAMILY = Family("schemas")

R = {"$ref": "#/$defs/n"}
Schema = dict[str, Any]


def nested(depth: int, key: str = "x", inner: Any = 1) -> Any:
    """An object in an object, so many levels deep."""
    for _ in range(depth):
        inner = {key: inner}
    return inner


def tree(node: Schema, *, depth: int = 40) -> Schema:
    """A schema whose `default`, which is checked against it, makes a validator branch at each level."""
    return {
        "type": "object",
        "$defs": {"n": node},
        "properties": {"a": R},
        "required": ["a"],
        "default": {"a": nested(depth)},
    }


def twice(how: str) -> Schema:
    """A tree that looks at each level twice, by a keyword that takes a list."""
    return tree({"type": "object", "properties": {"x": {how: [R, R]}}})


def with_default(schema: Schema, value: Any) -> Schema:
    """An object with one member that has to fit `schema`, and a default that is checked against it."""
    return {"type": "object", "properties": {"a": schema}, "required": ["a"], "default": {"a": value}}


BACKTRACKING = with_default(
    {"type": "array", "items": {"pattern": "^(?:(a|a|aa)*(?=c)|a*b)$"}}, ["a" * 13 + "b"] * 1000
)

BOMBS: dict[str, tuple[str, Callable[[], Schema]]] = {
    "any-of-tree": ("anyOf with the same reference twice, 40 levels", lambda: twice("anyOf")),
    "one-of-tree": ("oneOf with the same reference twice, 40 levels", lambda: twice("oneOf")),
    "not-tree": (
        "not, and not not, of the same reference, 40 levels",
        lambda: tree({"properties": {"x": {"allOf": [{"not": {"not": R}}, {"not": {"not": R}}]}}}),
    ),
    "if-then-else-tree": (
        "if, then and else all of the same reference, 40 levels",
        lambda: tree({"properties": {"x": {"if": R, "then": R, "else": R}}}),
    ),
    "dependent-schemas-tree": (
        "properties and dependentSchemas that both descend, 40 levels",
        lambda: tree({"properties": {"x": R}, "dependentSchemas": {"x": {"properties": {"x": R}}}}),
    ),
    "dynamic-ref-tree": (
        "$dynamicRef twice, 40 levels",
        lambda: {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$dynamicAnchor": "n",
            "type": "object",
            "properties": {"x": {"allOf": [{"$dynamicRef": "#n"}, {"$dynamicRef": "#n"}]}},
            "required": ["x"],
            "default": nested(40, inner={"x": {}}),
        },
    ),
    "unevaluated-tree": (
        "unevaluatedProperties over two allOf branches, 40 levels",
        lambda: tree(
            {"allOf": [{"properties": {"x": R}}, {"properties": {"x": R}}], "unevaluatedProperties": False}
        ),
    ),
    "pattern-properties": (
        "patternProperties that backtrack over long keys",
        lambda: with_default(
            {"patternProperties": {f"^(a+)+{n}$": {} for n in range(20)}},
            {"a" * 30 + str(n): 1 for n in range(99)},
        ),
    ),
    "property-names": (
        "propertyNames with a look-ahead that backtracks",
        lambda: with_default(
            {"propertyNames": {"pattern": "^(?=(a+)+$)(a|aa)+$"}}, {"a" * 26 + f"!{n}": 1 for n in range(500)}
        ),
    ),
    "unique-items": (
        "uniqueItems over 60,000 small objects",
        lambda: with_default({"uniqueItems": True}, [{"k": [n]} for n in range(60_000)]),
    ),
    "contains": (
        "contains, at least 9,000 times, of an anyOf of 500 over 9,000 items",
        lambda: with_default(
            {"contains": {"anyOf": [{"const": -n} for n in range(500)]}, "minContains": 9000}, [*range(9000)]
        ),
    ),
    "enum-huge": (
        "an enum of 60,000 objects, and as many values to look up in it",
        lambda: with_default(
            {"items": {"enum": [{"v": n} for n in range(60_000)]}}, [{"v": -n} for n in range(60_000)]
        ),
    ),
    "const-huge": (
        "a const of 2 MB that the default differs from at its end",
        lambda: with_default({"const": ["x" * 20] * 90_000}, ["x" * 20] * 89_999 + ["y"]),
    ),
    "deep-schema": ("properties 90 levels deep, each with ten siblings", lambda: _deep(90)),
    "self-reference": ("a reference to itself and nothing else", lambda: {"$defs": {"n": R}, **R}),
    "reference-ring": (
        "ten thousand definitions that refer to one another in a ring",
        lambda: {
            "type": "object",
            "$defs": {f"n{n}": {"$ref": f"#/$defs/n{(n + 1) % 10_000}"} for n in range(10_000)},
            "properties": {"a": {"$ref": "#/$defs/n0"}},
            "required": ["a"],
        },
    ),
    "smallest-huge": (
        "minItems and minLength of a billion, which echo is to fill",
        lambda: {
            "type": "object",
            "properties": {
                "a": {"type": "array", "minItems": 10**9, "items": {"type": "string", "minLength": 10**9}}
            },
            "required": ["a"],
        },
    ),
    "smallest-product": (
        "4,000 items of 4,000 items of 4,000 characters, each within what echo makes up",
        lambda: {
            "type": "object",
            "properties": {"a": _array(_array({"type": "string", "minLength": 4000}))},
            "required": ["a"],
        },
    ),
    "required-names": (
        "100,000 required names that nothing describes",
        lambda: {"type": "object", "required": [f"name-{n}" for n in range(100_000)]},
    ),
    "counted-pattern": (
        "a pattern of counted groups in counted groups",
        lambda: with_default({"pattern": "^((((a{1,99}){1,99}){1,99}){1,99}){1,99}$"}, "a" * 5000),
    ),
    "multiple-of": (
        "multipleOf a tiny number, of huge ones",
        lambda: with_default({"items": {"multipleOf": 1e-300}}, [1e300 + n for n in range(50_000)]),
    ),
}
"""Name, what it is, and the schema."""


def _array(items: Schema) -> Schema:
    return {"type": "array", "minItems": 4000, "items": items}


def _deep(levels: int) -> Schema:
    schema: Schema = {"type": "object"}
    for _ in range(levels):
        siblings = {f"s{n}": {"type": "object", "default": {}} for n in range(10)}
        schema = {"type": "object", "properties": {"x": schema, **siblings}, "required": ["x", *siblings]}
    return schema


async def overriding(field: Field, make: Callable[[], Schema]) -> None:
    """The schema as an override, a few a second, so that a worker that it takes is wanted again."""
    schema = make()
    await field.flood(lambda _: field.override({"output_schema": schema}), beside=3, per_s=6)


@FAMILY.attack("run", finding=1)
async def all_of_tree(field: Field) -> None:
    """550 bytes: allOf with the same reference twice over a default 40 levels deep, 2^40 steps."""
    await field.override({"output_schema": twice("allOf")}, timeout_s=field.left_s)


@FAMILY.attack("run", finding=1)
async def backtracking_pattern(field: Field) -> None:
    """A pattern that backtracks, over 1,000 items."""
    await overriding(field, lambda: BACKTRACKING)


@FAMILY.attack("run", finding=5)
async def distinct_schemas(field: Field) -> None:
    """24 schemas of 2.1 MB, each another one, so that a cache keeps them all."""

    async def one(number: int) -> None:
        names = {f"name-{number}-{n}": {"type": "string", "maxLength": n} for n in range(40_000)}
        await field.override({"output_schema": {"type": "object", "properties": names}})

    for number in range(24):
        await one(number)


for bomb, (about, make_schema) in BOMBS.items():
    FAMILY.add(bomb, about, functools.partial(overriding, make=make_schema), role="run")


@FAMILY.attack("admin")
async def inputs_tree(field: Field) -> None:
    """A flow whose inputs have the allOf tree, pushed and run with parameters 40 levels deep."""
    steps = [{"id": "one", "type": "passthrough"}]
    slug = await field.publish("tree", steps, inputs={**twice("allOf"), "default": {}})
    await field.flood(lambda _: field.execute(slug, {"parameters": {"a": nested(40)}}), beside=3, per_s=6)


@FAMILY.attack("admin")
async def inputs_defaults(field: Field) -> None:
    """Defaults of inputs that fill one another in: 100 items, each of which gets a megabyte."""
    item = {"type": "object", "properties": {"fill": {"default": "x" * 900_000}}}
    inputs = {"type": "object", "properties": {"rows": {"type": "array", "items": item}}}
    slug = await field.publish("filled", [{"id": "one", "type": "passthrough"}], inputs=inputs)
    body: Schema = {"parameters": {"rows": [{} for _ in range(100)]}}
    await field.flood(lambda _: field.execute(slug, body), beside=4, per_s=10)
