"""JSON Schemas: compiled once, what they find told in words, their own references followed.

Flow files, the inputs of a run and the answers of models are judged by schemas; all of them here, so that a
mistake reads the same wherever it is found. Must not know what a schema is for.
"""

import difflib
import functools
from collections.abc import Iterator
from itertools import islice
from typing import Any

import jsonschema_rs
import msgspec
from jsonschema_rs import ValidationErrorKind as Kind

from runglass.findings import Finding, path_text, shown

MAX_REFERENCES = 10_000
"""References that a validator may have to follow for one value: a chain of doublings would take for ever."""

Schema = dict[str, Any]


@functools.lru_cache(maxsize=512)
def _compiled(encoded: bytes) -> jsonschema_rs.Validator:
    schema = msgspec.json.decode(encoded)
    if _references_followed(schema) > MAX_REFERENCES:
        raise ValueError(f"it follows more than {MAX_REFERENCES:,} references for one value")
    return jsonschema_rs.validator_for(schema, offline=True)


def compile_schema(schema: Schema) -> jsonschema_rs.Validator:
    """A validator of the schema, compiled once; a remote `$ref` is never fetched.

    Raises ValueError for what is not a schema; the ones in a parsed flow have been tried.
    """
    return _compiled(msgspec.json.encode(schema, order="deterministic"))


def mistakes(value: Any, schema: Schema, *, most: int = 5) -> list[str]:
    """What is wrong with the value and where, in at most so many sentences. Raises ValueError like above."""
    found = (f for error in compile_schema(schema).iter_errors(value) for f in explain(error, schema))
    return [sentence(finding) for finding in islice(found, most)]


def sentence(finding: Finding) -> str:
    """What is wrong, with the place in front where there is one."""
    path, said = path_text(finding.path), finding.message
    if not path:
        return said
    named = f"`{finding.path[-1]}` "
    return f"`{path}` {said.removeprefix(named)}" if said.startswith(named) else f"`{path}`: {said}"


def target(schema: Schema, reference: str) -> Any:
    """What a reference to a place in the same schema stands for; raises LookupError for any other."""
    place: Any = schema
    if reference == "#":
        return place
    if not reference.startswith("#/"):
        raise LookupError(reference)
    for part in reference[2:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(place, list) and key.isdecimal():
            place = place[int(key)]
        elif isinstance(place, dict):
            place = place[key]
        else:
            raise LookupError(reference)
    return place


def _references_followed(schema: Schema) -> int:
    """How many references a value meets at most, one that leads back to itself counted once."""
    within: dict[str, list[str]] = {}
    followed: dict[str, int] = {}
    pending = ["#"]
    while pending:
        name = pending[-1]
        if name not in within:
            within[name] = list(_references_in(schema, name))
            pending += [inner for inner in within[name] if inner not in within]
        else:
            pending.pop()
            followed.setdefault(name, sum(1 + followed.get(inner, 0) for inner in within[name]))
    return followed["#"]


def _references_in(schema: Schema, reference: str) -> Iterator[str]:
    try:
        pending = [target(schema, reference)]
    except LookupError:
        return
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                yield part["$ref"]
            # Definitions are of no account until something refers to them.
            pending += [inner for key, inner in part.items() if key not in ("$defs", "definitions")]
        elif isinstance(part, list):
            pending += part


_KINDS = {
    "array": "a list",
    "boolean": "a boolean (true or false)",
    "integer": "an integer",
    "null": "null",
    "object": "an object",
}


def explain(error: jsonschema_rs.ValidationError, schema: Schema | None = None) -> Iterator[Finding]:
    """The error in words. With the schema that found it, an unknown field comes with a suggestion."""
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
    """Of several allowed forms, the mistakes of the one that was meant."""
    path = tuple(error.instance_path)
    outermost = [[e.kind for e in branch if e.instance_path == error.instance_path] for branch in branches]
    # The least wrong on the outside is the one that was meant: 2 is a wrong type, 1 any other mistake there.
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
    """`a, b or c`."""
    *most, last = (option if isinstance(option, str) else shown(option) for option in options)
    return _trimmed(f"{', '.join(most)} or {last}" if most else last)


def suggestion(word: Any, known: list[Any]) -> str:
    """`; did you mean …?`, or nothing when no known word is near."""
    # difflib takes quadratic time, and nobody types a name that long.
    if not isinstance(word, str) or len(word) > 64:
        return ""
    near = difflib.get_close_matches(word, [k for k in known if isinstance(k, str)], n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def _trimmed(message: str) -> str:
    return message if len(message) <= 240 else f"{message[:80]} … {message[-150:]}"
