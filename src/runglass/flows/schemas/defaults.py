"""The `default`s of a JSON Schema, filled into a value where it has none of its own.

Only `properties`, `items` and references inside the schema are followed: the defaults in `allOf`, `anyOf` or
`if` depend on the value itself, and walking their combinations has no bound. The work is linear in the value
and the defaults filled in. Must not know what a schema is for.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec

from runglass.flows.schemas.cost import target
from runglass.flows.schemas.schema import Schema
from runglass.support.byte_cache import ByteCache

MAX_FILLED_BYTES = 4 << 20
"""The most JSON that is filled in, names included, as defaults within defaults can double at each level."""

MAX_REFERENCES = 100
"""The longest chain of references that is followed to one schema."""


class TooManyDefaults(ValueError):
    """The defaults of a schema would make a value of more than MAX_FILLED_BYTES."""


class _Node:
    """The defaults of a schema, of its own and below."""

    __slots__ = ("default", "filled", "inner", "items", "matters", "refers_to", "used_by")

    def __init__(self) -> None:
        self.default: bytes | None = None
        self.inner: dict[str, _Node] = {}
        self.items: _Node | None = None
        self.refers_to: _Node | None = None
        self.filled: dict[str, bytes] = {}
        self.used_by: list[_Node] = []
        self.matters = False

    def chain(self) -> Iterator["_Node"]:
        """The schema and the schemas that its reference leads to, the nearest first."""
        node: _Node | None = self
        for _ in range(MAX_REFERENCES):
            if node is None:
                return
            yield node
            node = node.refers_to


def fill_defaults(value: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """The value with the schema's defaults for its missing members; given members always stand.

    A default that is an object is filled like a given one; a missing object without a default stays missing.
    The value itself stays as it is. Raises TooManyDefaults.
    """
    filled, room = dict(value), MAX_FILLED_BYTES
    # Parts of the value, copied before, each with its schema, and with the schemas whose defaults it lies in:
    # a default that holds itself would never end.
    pending: list[tuple[Any, _Node, tuple[_Node, ...]]] = [
        (filled, _compiled(msgspec.json.encode(schema)), ())
    ]
    while pending:
        part, node, made_by = pending.pop()
        forms = [form for form in node.chain() if form.matters]
        if isinstance(part, list):
            items = next((form.items for form in forms if form.items is not None), None)
            if items is not None and items.matters:
                for index, item in enumerate(part):
                    if isinstance(item, dict | list):
                        part[index] = copy = item.copy()
                        pending.append((copy, items, made_by))
            continue
        made: set[str] = set()
        copied: set[str] = set()
        for form in forms:
            for name, default in form.filled.items():
                if name not in part:
                    room -= len(name) + len(default)
                    if room < 0:
                        raise TooManyDefaults(f"the defaults make more than {MAX_FILLED_BYTES:,} bytes")
                    part[name] = msgspec.json.decode(default)
                    made.add(name)
            # The shorter of the two is walked, so that neither a large schema nor a large value costs time
            # for the other.
            for name in list(part) if len(part) < len(form.inner) else form.inner:
                inner, below = form.inner.get(name), part.get(name)
                if inner is None or not inner.matters or not isinstance(below, dict | list):
                    continue
                if name in made:
                    if inner not in made_by:
                        pending.append((below, inner, (*made_by, inner)))
                    continue
                if name not in copied:
                    part[name] = below = below.copy()
                    copied.add(name)
                pending.append((below, inner, made_by))
    return filled


def _compile(encoded: bytes) -> _Node:
    schema = msgspec.json.decode(encoded)
    nodes: dict[int, _Node] = {}
    pending: list[Any] = []

    def node_of(part: Any) -> _Node:
        node = nodes.get(id(part))
        if node is None:
            node = nodes[id(part)] = _Node()
            pending.append(part)
        return node

    root = node_of(schema)
    while pending:
        part = pending.pop()
        if not isinstance(part, dict):
            continue
        node = nodes[id(part)]
        if "default" in part:
            node.default = msgspec.json.encode(part["default"])
        if isinstance(properties := part.get("properties"), dict):
            node.inner = {name: node_of(inner) for name, inner in properties.items()}
        if isinstance(items := part.get("items"), dict):
            node.items = node_of(items)
        if isinstance(reference := part.get("$ref"), str):
            # A reference by a name (`$anchor`) is left to the validator.
            with suppress(LookupError):
                node.refers_to = node_of(target(schema, reference))
    for node in nodes.values():
        for name, inner in node.inner.items():
            default = next((form.default for form in inner.chain() if form.default is not None), None)
            if default is not None:
                node.filled[name] = default
        for used in (*node.inner.values(), node.items, node.refers_to):
            if used is not None:
                used.used_by.append(node)
    # Those that have defaults in or below them matter: no other part of a value is walked.
    mattering = [node for node in nodes.values() if node.filled]
    while mattering:
        node = mattering.pop()
        if not node.matters:
            node.matters = True
            mattering += node.used_by
    return root


_compiled = ByteCache(_compile, times=60, share=0.09)
