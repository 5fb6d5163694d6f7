"""The fields of each kind of step that have a syntax of their own: templates, code, schemas and others.

Read from the annotations in `flow.py`, for all who check or read such fields: none keeps a list of its own.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

import msgspec

from runglass.flows.flow import BaseStep, Step, Syntax

REFERRING: frozenset[Syntax] = frozenset({"template", "templates", "code", "expression"})
"""The syntaxes that may refer to inputs and to outputs of other steps."""


class StepField(NamedTuple):
    """A field by its name in a flow file, its attribute in the struct, and what it is written in."""

    name: str
    attribute: str
    syntax: Syntax


@functools.cache
def fields_with_syntax(kind: type[BaseStep]) -> tuple[StepField, ...]:
    """The fields of a kind of step that have a syntax, in the order of the struct."""
    return tuple(
        StepField(field.encode_name, field.name, meta.extra["syntax"])
        for field in msgspec.structs.fields(kind)
        for meta in getattr(field.type, "__metadata__", ())
        if isinstance(meta, msgspec.Meta) and meta.extra is not None
    )


@functools.cache
def referring_attributes(kind: type[BaseStep]) -> tuple[str, ...]:
    """The attributes of a kind of step that may refer to inputs and to outputs of other steps."""
    return tuple(field.attribute for field in fields_with_syntax(kind) if field.syntax in REFERRING)


@functools.cache
def _kinds() -> Mapping[str, Mapping[str, Syntax]]:
    return {kind.__struct_config__.tag: _syntaxes(kind) for kind in get_args(Step)}


@functools.cache
def _syntaxes(kind: type[BaseStep]) -> Mapping[str, Syntax]:
    return {field.name: field.syntax for field in fields_with_syntax(kind)}


def syntaxes(kind: Any) -> Mapping[str, Syntax]:
    """The syntax of each field of a step in a flow file, by name, for the value of its `type`.

    Where that is no kind of step, the fields that every step has.
    """
    known = _kinds().get(kind) if isinstance(kind, str) else None
    return _syntaxes(BaseStep) if known is None else known
