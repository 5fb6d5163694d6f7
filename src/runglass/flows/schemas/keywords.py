"""Keywords of a JSON Schema that do nothing: misspelt ones, and those of another type than the schema's.

A validator ignores both silently, as the standard demands. Must not know what a schema is for.
"""

from collections.abc import Iterator
from typing import Any

from runglass.flows.diagnostics import Finding, Path, shown
from runglass.flows.schemas.schema import any_of
from runglass.support.safe_text import suggestion

_OF_TYPE: dict[str, tuple[str, ...]] = {
    "string": ("minLength", "maxLength", "pattern", "contentEncoding", "contentMediaType", "contentSchema"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "array": (
        "items",
        "prefixItems",
        "additionalItems",
        "unevaluatedItems",
        "contains",
        "minContains",
        "maxContains",
        "minItems",
        "maxItems",
        "uniqueItems",
    ),
    "object": (
        "properties",
        "patternProperties",
        "additionalProperties",
        "unevaluatedProperties",
        "propertyNames",
        "minProperties",
        "maxProperties",
        "required",
        "dependentRequired",
        "dependentSchemas",
        "dependencies",
    ),
}
_TYPE_OF = {keyword: kind for kind, keywords in _OF_TYPE.items() for keyword in keywords}
_ONE_SCHEMA = frozenset(
    {
        "additionalItems",
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_LISTS = frozenset({"allOf", "anyOf", "items", "oneOf", "prefixItems"})
_MAPS = frozenset(
    {"$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"}
)
_ANNOTATIONS = frozenset(
    {
        "$anchor",
        "$comment",
        "$dynamicAnchor",
        "$dynamicRef",
        "$id",
        "$recursiveAnchor",
        "$recursiveRef",
        "$ref",
        "$schema",
        "$vocabulary",
        "const",
        "default",
        "deprecated",
        "description",
        "enum",
        "examples",
        "format",
        "id",
        "readOnly",
        "title",
        "type",
        "writeOnly",
    }
)
_OF_OPENAPI = frozenset({"discriminator", "example", "externalDocs", "nullable", "xml"})
"""Keywords of OpenAPI, which many schemas have. Models read them, validators do not."""
KEYWORDS = _ANNOTATIONS | _OF_OPENAPI | _ONE_SCHEMA | _LISTS | _MAPS | _TYPE_OF.keys()
"""The keywords of draft 2020-12, and those of earlier drafts that still have an effect."""

_NEEDS = {"then": "if", "else": "if", "minContains": "contains", "maxContains": "contains"}


def idle_keywords(schema: Any, path: Path) -> Iterator[Finding]:
    """A warning for each keyword without effect. Keywords beginning with `x-` count as notes."""
    if not isinstance(schema, dict) or "2020-12/schema" not in str(schema.get("$schema", "2020-12/schema")):
        # Another dialect may have keywords of its own.
        return
    pending: list[tuple[dict[str, Any], Path]] = [(schema, path)]
    while pending:
        part, part_path = pending.pop()
        types = part.get("type")
        types = [types] if isinstance(types, str) else types
        inner: list[tuple[Any, Path]] = []
        for keyword, value in part.items():
            message = None
            if keyword not in KEYWORDS:
                if not keyword.startswith(("x-", "x_")):
                    message = f"there is no keyword {shown(keyword)}: it does nothing"
                    message += suggestion(keyword, sorted(KEYWORDS))
            elif _NEEDS.get(keyword, keyword) not in part:
                message = f"`{keyword}` does nothing without `{_NEEDS[keyword]}`"
            elif keyword in _TYPE_OF and isinstance(types, list) and types:
                kind = _TYPE_OF[keyword]
                if kind not in types and not (kind == "number" and "integer" in types):
                    named = any_of(types)
                    message = f"`{keyword}` does nothing beside `type: {named}`; it is for type {kind}"
            if message is not None:
                yield Finding(message, (*part_path, keyword), at_key=True, is_warning=True)
            if keyword in _LISTS and isinstance(value, list):
                inner += [(item, (*part_path, keyword, index)) for index, item in enumerate(value)]
            elif keyword in _MAPS and isinstance(value, dict):
                inner += [(item, (*part_path, keyword, name)) for name, item in value.items()]
            elif keyword in _ONE_SCHEMA:
                inner.append((value, (*part_path, keyword)))
        pending += [(found, at) for found, at in reversed(inner) if isinstance(found, dict)]
