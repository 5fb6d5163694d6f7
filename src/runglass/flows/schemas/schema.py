"""JSON Schemas: compiled once, with their mistakes in words and their own references followed.

Flow files, the inputs of a run and the answers of models are judged by schemas; all of them here, so that a
mistake reads the same wherever it is found. Must not know what a schema is for.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jsonschema_rs
import msgspec
from jsonschema_rs import ValidationErrorKind as Kind

from runglass.flows.diagnostics import Finding, path_text, shown
from runglass.flows.schemas.cost import Cost, cost_of, is_linear, pattern_weight, patterns_in
from runglass.support.byte_cache import ByteCache
from runglass.support.safe_text import suggestion

MAX_REFERENCES = 10_000
"""The most references that a validator follows for one value: a chain of doublings would never end."""

QUICK_SCHEMA_BYTES = 32 * 1024
QUICK_PARTS = 10_000
QUICK_PATTERNS = 5_000
"""The most bytes of a schema that is compiled on the event loop, which takes 10 ms at the very worst."""

QUICK_WORK = 8_000_000
"""The most parts of a schema times bytes of a value there: 2.5 ns each at worst, 0.5 as a rule."""

QUICK_COMPARED = 16_000_000
"""Lists of unique items times the square of a value's bytes: 4 kB for one of them take 10 ms at worst."""

QUICK_ERRORS = 1_500
MAX_ERRORS = 200_000
"""Rules times parts of a value, each of which may be an error of 20 µs."""

Schema = dict[str, Any]


class Unproved(Exception):
    """The work is not proved to end soon, so it belongs in a process that can be killed."""


class _Compiled(NamedTuple):
    validator: jsonschema_rs.Validator
    cost: Cost


def _compile(encoded: bytes) -> _Compiled:
    schema = msgspec.json.decode(encoded)
    cost = _costs(encoded)
    if cost.references > MAX_REFERENCES:
        raise ValueError(f"it follows more than {MAX_REFERENCES:,} references for one value")
    return _Compiled(jsonschema_rs.validator_for(schema, offline=True), cost)


def _cost(encoded: bytes) -> Cost:
    schema = msgspec.json.decode(encoded)
    cost = cost_of(schema)
    few = cost.proved and cost.parts <= QUICK_PARTS and cost.patterns <= QUICK_PATTERNS
    # This also tries definitions that no reference leads to.
    patterns = list(patterns_in(schema)) if few else []
    proved = few and sum(map(pattern_weight, patterns)) <= QUICK_PATTERNS and all(map(is_linear, patterns))
    return cost._replace(proved=proved)


# A compiled schema takes some 25 times its JSON, and more for patterns and for parts that references repeat.
_compiled = ByteCache(
    _compile, times=30, share=0.25, beside=lambda each: 300 * each.cost.parts + 600 * each.cost.patterns
)
_costs = ByteCache(_cost, times=1, share=0.03)


def compile_schema(schema: Schema) -> jsonschema_rs.Validator:
    """A validator of the schema, compiled once; a remote `$ref` is never fetched.

    Raises ValueError for an invalid schema; those of a parsed flow are valid.
    """
    return _compiled(msgspec.json.encode(schema)).validator


def prove_quick(schema: Any, *, size_bytes: int = 0) -> Cost:
    """The cost of a schema that is proved to judge a value of that size, as JSON, in milliseconds.

    Raises Unproved for any other, without compiling it.
    """
    return _proved_cost(msgspec.json.encode(schema), size_bytes)


def _proved_cost(encoded: bytes, size_bytes: int) -> Cost:
    if len(encoded) > QUICK_SCHEMA_BYTES:
        raise Unproved
    cost = _costs(encoded)
    if not cost.proved or max(cost.parts, 4 * cost.patterns) * size_bytes > QUICK_WORK:
        raise Unproved
    if cost.uniques * size_bytes**2 > QUICK_COMPARED:
        raise Unproved
    return cost


def findings_in(value: Any, schema: Schema, *, quick_bytes: int | None = None) -> Iterator[Finding]:
    """The mistakes of the value; with `quick_bytes`, its size as JSON, only where that is proved quick.

    A large value with many rules gets only its first mistake: an error takes a hundred times as long as a
    pass. Raises ValueError like `compile_schema`, and Unproved.
    """
    encoded = msgspec.json.encode(schema)
    cost = None if quick_bytes is None else _proved_cost(encoded, quick_bytes)
    compiled = _compiled(encoded)
    if compiled.validator.is_valid(value):
        return iter(())
    rules, few = (cost or compiled.cost).rules, QUICK_ERRORS if cost is not None else MAX_ERRORS
    if rules * _count(value, most=few // max(rules, 1) + 1) <= few:
        errors = compiled.validator.iter_errors(value)
        return (finding for error in errors for finding in explain(error, schema))
    if cost is not None:
        raise Unproved
    try:
        compiled.validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        return explain(error, schema)
    return iter(())


def _count(value: Any, *, most: int) -> int:
    """How many parts a value has, or `most` where it has more."""
    pending, count = [value], 0
    while pending and count < most:
        part = pending.pop()
        count += 1
        if isinstance(part, dict):
            count += len(part)
            pending += part.values()
        elif isinstance(part, list):
            pending += part
    return count


def sentence(finding: Finding) -> str:
    """The finding as a sentence, with its path in front where it has one."""
    path, said = path_text(finding.path), finding.message
    if not path:
        return said
    named = f"`{finding.path[-1]}` "
    return f"`{path}` {said.removeprefix(named)}" if said.startswith(named) else f"`{path}`: {said}"


_KINDS = {
    "array": "a list",
    "boolean": "a boolean (true or false)",
    "integer": "an integer",
    "null": "null",
    "object": "an object",
}


def explain(error: jsonschema_rs.ValidationError, schema: Schema | None = None) -> Iterator[Finding]:
    """The error in words. With the schema, an error about an unknown field has a suggestion."""
    path, kind = tuple(error.instance_path), error.kind
    match kind:
        case Kind.Required():
            yield Finding(f"`{kind.property}` is missing", (*path, kind.property))
        case Kind.AdditionalProperties():
            known = _members(schema, error.schema_path[:-1])
            for name in kind.unexpected:
                message = f"unknown field {shown(name)}{suggestion(name, known)}"
                yield Finding(message, (*path, name), at_key=True)
        case Kind.Type():
            yield Finding(expected(kind.types, error.instance), path)
        case Kind.Enum():
            hint = suggestion(error.instance, kind.options)
            yield Finding(f"expected {any_of(kind.options)}, found {shown(error.instance)}{hint}", path)
        case Kind.AnyOf() | Kind.OneOfNotValid():
            yield from _explain_branches(error, kind.context, schema)
        case Kind.MinItems() | Kind.MinLength() | Kind.MinProperties() if kind.limit == 1:
            yield Finding("must not be empty", path)
        case Kind.FalseSchema():
            closed = error.schema_path[-1:] == ["additionalProperties"]
            yield Finding("no fields are allowed here" if closed else "is not allowed", path)
        case _:
            yield Finding(_trimmed(error.message), path)


def _explain_branches(
    error: jsonschema_rs.ValidationError,
    branches: list[list[jsonschema_rs.ValidationError]],
    schema: Schema | None,
) -> Iterator[Finding]:
    """The mistakes of the value in the allowed form that it is nearest to."""
    path = tuple(error.instance_path)
    outermost = [[e.kind for e in branch if e.instance_path == error.instance_path] for branch in branches]
    # The form with the least mistakes at the outermost level is the nearest: a wrong type counts 2, any other
    # mistake 1.
    misfits = [
        2 if any(isinstance(k, Kind.Type) for k in kinds) else min(len(kinds), 1) for kinds in outermost
    ]
    meant = [branch for branch, misfit in zip(branches, misfits, strict=True) if misfit == min(misfits)]
    if min(misfits) == 2:
        types = [name for kinds in outermost for k in kinds if isinstance(k, Kind.Type) for name in k.types]
        yield Finding(expected(types, error.instance), path)
    elif len(meant) == 1:
        for inner in meant[0]:
            yield from explain(inner, schema)
    else:
        forms = (finding for branch in meant for finding in explain(branch[0], schema))
        yield Finding(_trimmed("fits no allowed form: " + "; or ".join(form.message for form in forms)), path)


def _members(schema: Schema | None, path: list[str | int]) -> list[str]:
    part: Any = schema
    try:
        for key in path:
            part = part[key]
        return list(part["properties"])
    except (LookupError, TypeError):
        # A reference may lead out of this schema, into a published one.
        return []


def expected(types: list[str], value: Any) -> str:
    """`expected …, found …`, by the names that people use for the types of JSON."""
    kind = "object" if isinstance(value, dict) else "array" if isinstance(value, list) else None
    wanted = " or ".join(_KINDS.get(name, f"a {name}") for name in types)
    return f"expected {wanted}, found {_KINDS[kind] if kind else shown(value)}"


def any_of(options: list[Any]) -> str:
    """`a, b or c`; `nothing` where there is none, as in `enum: []`."""
    *most, last = [option if isinstance(option, str) else shown(option) for option in options] or ["nothing"]
    return _trimmed(f"{', '.join(most)} or {last}" if most else last)


def _trimmed(message: str) -> str:
    return message if len(message) <= 240 else f"{message[:80]} … {message[-150:]}"
