"""Schemas that cost far more than their size: as overrides of a run, and as schemas of a flow's inputs.

And flow files of the attacker's admin: YAML that unfolds, and flows that are huge.
"""

from collections.abc import Callable
from typing import Any

from tests.flows import SAME, branching, doubling, nested
from tests.prove.attacking.attack import COPY, Call, Family, Field
from tests.prove.attacking.http import ATTACKER

SCHEMAS = Family("schemas")

Schema = dict[str, Any]


def with_default(schema: Schema, value: Any) -> Schema:
    """An object with one member that has to fit `schema`, and a default that is checked against it."""
    return {**_required(schema), "default": {"a": value}}


BOMBS: dict[str, Callable[[], Schema]] = {
    "any-of-tree": lambda: doubling(40, "anyOf"),
    "one-of-tree": lambda: doubling(40, "oneOf"),
    "not-tree": lambda: branching(
        {"properties": {"x": {"allOf": [{"not": {"not": SAME}}, {"not": {"not": SAME}}]}}}
    ),
    "if-then-else-tree": lambda: branching({"properties": {"x": {"if": SAME, "then": SAME, "else": SAME}}}),
    "dependent-schemas-tree": lambda: branching(
        {"properties": {"x": SAME}, "dependentSchemas": {"x": {"properties": {"x": SAME}}}}
    ),
    "dynamic-ref-tree": lambda: {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$dynamicAnchor": "n",
        "type": "object",
        "properties": {"x": {"allOf": [{"$dynamicRef": "#n"}, {"$dynamicRef": "#n"}]}},
        "required": ["x"],
        "default": nested(40, inner={"x": {}}),
    },
    "unevaluated-tree": lambda: branching(
        {"allOf": [{"properties": {"x": SAME}}, {"properties": {"x": SAME}}], "unevaluatedProperties": False}
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
    "self-reference": lambda: {"$defs": {"n": SAME}, **SAME},
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


@SCHEMAS.attack("run")
async def all_of_tree(field: Field) -> None:
    """550 bytes: allOf with the same reference twice over a default 40 levels deep, 2^40 steps."""
    await field.override({"output_schema": doubling(40)})


@SCHEMAS.attack("run")
async def distinct_schemas(field: Field) -> None:
    """24 schemas of 2.1 MB, each another one, so that a cache keeps them all."""
    for number in range(24):
        names = {f"name-{number}-{n}": {"type": "string", "maxLength": n} for n in range(40_000)}
        await field.override({"output_schema": {"type": "object", "properties": names}})


SCHEMAS.each("run", _overriding, BOMBS)


async def _pushed(field: Field, made: tuple[Schema, Schema]) -> None:
    """The schema as that of a flow's inputs, which is run with these parameters."""
    inputs, parameters = made
    slug = await field.publish("typed", COPY, inputs=inputs)
    await field.flood(lambda _: field.execute(slug, {"parameters": parameters}), beside=3, per_s=8)


FILLED = {"type": "object", "properties": {"fill": {"default": "x" * 900_000}}}
INPUTS: dict[str, tuple[Schema, Schema]] = {
    "inputs-tree": ({**doubling(40), "default": {}}, {"a": nested(40)}),
    "inputs-defaults": (
        {"type": "object", "properties": {"rows": {"type": "array", "items": FILLED}}},
        {"rows": [{} for _ in range(100)]},
    ),
}
SCHEMAS.each("admin", _pushed, INPUTS)


FLOW_FILES = Family("yaml-files")

MB = 1_000_000
FILE_END = "\nslug: file\nsteps: [{id: a, type: passthrough}]\n"
STEPS = "slug: file\nsteps:\n"


def _laughs() -> str:
    lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    return "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x, x]", *lines]) + FILE_END


def _merges() -> str:
    lines = [f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 8)}], k{n}: v}}" for n in range(1, 2000)]
    return "\n".join(["m0: &m0 {k: v}", *lines]) + FILE_END


def _expressions() -> str:
    hostile = (
        "(" * 90_000,
        "-" * 90_000 + "1",
        "[" + "[x for x in " * 8000,
        "f'" + "{" * 40_000,
        "a." * 40_000,
    )
    return STEPS + "".join(
        f'- {{id: s{n}, type: condition, if: "{text}", then: [{{id: t{n}, type: passthrough}}]}}\n'
        for n, text in enumerate(hostile)
    )


FILES: dict[str, Callable[[], str]] = {
    "billion-laughs": _laughs,
    "merge-keys": _merges,
    "anchors": lambda: "\n".join(f"a{n}: &a{n} 1" for n in range(40_000)) + FILE_END,
    "deep-sequences": lambda: "a: " + "[" * (MB // 2) + FILE_END,
    "deep-blocks": lambda: "a:\n " + "- " * 100_000 + "x" + FILE_END,
    "long-keys": lambda: ("? " + "k" * 100_000 + "\n: 1\n") * 9 + FILE_END,
    "tags": lambda: "a: !!python/object/apply:os.system [id]\n" * 20_000 + FILE_END,
    "huge-scalars": lambda: (
        "".join(f"n{n}: 0x{'f' * 100_000}\nd{n}: 2001-01-01\n" for n in range(9)) + FILE_END
    ),
    "mistakes": lambda: STEPS + "".join(f"- {{id: s{n}, type: lmm, promt: x}}\n" for n in range(20_000)),
    "expressions": _expressions,
}


async def _push(field: Field, text: str) -> None:
    await field.call("PUT", f"/flows/{ATTACKER}/file", text.encode()[: MB - 10])


async def _publish(field: Field, text: str) -> None:
    await _push(field, text)
    await field.call("POST", f"/flows/{ATTACKER}/file/publish")


async def _pushed_again(field: Field, make: Callable[[], str]) -> None:
    text = make()
    await field.flood(lambda _: _push(field, text), beside=4, per_s=6)


@FLOW_FILES.attack("admin")
async def twelve_pushes(field: Field) -> None:
    """12 pushes at once of 1 MB of YAML that is slow to read."""
    await field.together(12, lambda _: _push(field, STEPS + "- {a: [1, {b: 'c'}], d: \"e\"}\n" * 40_000))


FLOW_FILES.each("admin", _pushed_again, FILES)


@FLOW_FILES.attack("admin")
async def ten_thousand_steps(field: Field) -> None:
    """Flows of 10,000 steps, pushed, published and started again and again."""
    text = STEPS + "".join(f"- {{id: s{n}, type: passthrough}}\n" for n in range(10_000))

    async def one(_: int) -> None:
        await _publish(field, text)
        await field.job("file")

    await field.flood(one, beside=2, per_s=2)


async def _made(field: Field, number: int) -> None:
    """A new flow, and now and then the list of all."""
    text = f"slug: file-{number}\nsteps: [{{id: a, type: passthrough}}]\n".encode()
    await field.call("PUT", f"/flows/{ATTACKER}/file-{number}", text)
    if number % 10 == 0:
        await field.call("GET", "/flows")


STORMS: dict[str, Call] = {
    "publish-storm": lambda field, n: _publish(field, f"name: n{n}{FILE_END}"),
    "many-flows": _made,
}
FLOW_FILES.floods("admin", 4, 80, STORMS)
