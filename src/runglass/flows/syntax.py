"""The syntax of the texts inside a flow, and which fields of a step are such texts.

That is read from the annotations in `flow.py`: nobody keeps a list of his own.
"""

import ast
import functools
import keyword
import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, get_args

import minijinja
import msgspec

from runglass.flows.diagnostics import Finding, Path, shown
from runglass.flows.flow import BaseStep, Step, Syntax
from runglass.flows.schemas.schema import any_of

MAX_TAG_TOKENS = 500
MAX_ELIFS = 100
RESERVED_NAMES = ("attempt", "index", "initial", "steps")

_parsing = threading.Lock()

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


_SYNTAXES: Mapping[type[BaseStep], Mapping[str, Syntax]] = {
    kind: {field.name: field.syntax for field in fields_with_syntax(kind)}
    for kind in (BaseStep, *get_args(Step))
}
_KINDS: Mapping[Any, type[BaseStep]] = {kind.__struct_config__.tag: kind for kind in get_args(Step)}


def syntaxes(kind: Any) -> Mapping[str, Syntax]:
    """The syntax of each field of a step in a flow file, by name, for the value of its `type`.

    Where that is no kind of step, the fields that every step has.
    """
    return _SYNTAXES[_KINDS.get(kind, BaseStep) if isinstance(kind, str) else BaseStep]


def parse_python(text: str, mode: Literal["exec", "eval"]) -> ast.AST:
    """The syntax tree of a flow's code. Raises what `ast.parse` raises."""
    # Python's warnings about a flow are not the server's; catch_warnings is not thread-safe.
    with _parsing, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text, mode=mode)


def python_findings(text: Any, path: Path, *, what: str, mode: Literal["exec", "eval"]) -> Iterator[Finding]:
    """The mistake in a text that has to be Python, if there is one."""
    if not isinstance(text, str) or not text:
        return
    try:
        tree = parse_python(text, mode)
    except SyntaxError as error:
        line, column = error.lineno and max(error.lineno, 1), max(error.offset or 1, 1)
        yield Finding(f"{what} is not valid Python: {error.msg}", path, line=line, column=column)
    except (ValueError, MemoryError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
        yield Finding(f"{what} is not valid Python: {reason}", path)
    else:
        if isinstance(tree, ast.Module) and not tree.body:
            yield Finding(f"{what} is empty; it must return an object", path)
        match tree:
            # As in a template: a set that holds a set or dict, which no set can.
            case ast.Expression(body=ast.Set(elts=[ast.Set() | ast.Dict()])):
                plain = shown(text.strip()[2:-2].strip())
                yield Finding(f"{what} is Python, which has no {{{{ }}}}: write {plain}", path)


_TAG = re.compile(
    r"\{#.*?(?:#\}|\Z)|\{%[-+]?\s*raw\s*[-+]?%\}.*?(?:\{%[-+]?\s*endraw\s*[-+]?%\}|\Z)|\{[{%]", re.DOTALL
)
_ELIF = re.compile(r"\{%[-+]?\s*elif\b")
_CLOSING = {"{{": re.compile(r"[-+]?\}\}"), "{%": re.compile(r"[-+]?%\}")}
_TOKEN = re.compile(r"""\s+|(?P<text>"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?)|(?P<name>\w+)|.""", re.DOTALL)


class Token(NamedTuple):
    """A part of a tag: a `name`, a quoted `text` or a single character, and where it begins."""

    kind: str | None
    text: str
    offset: int


def tags(source: str) -> Iterator[tuple[int, list[Token]]]:
    """Where each tag of a template begins, and its tokens without spaces.

    Of an overlong tag it gives some more than `MAX_TAG_TOKENS`, and no tag after it.
    """
    at = 0
    while opening := _TAG.search(source, at):
        at = opening.end()
        closing = _CLOSING.get(opening[0])
        if closing is None:
            # A comment, or text that is left as it is.
            continue
        tokens: list[Token] = []
        open_brackets = 0
        while token := _TOKEN.match(source, at):
            if open_brackets == 0 and (end := closing.match(source, at)):
                at = end.end()
                break
            at = token.end()
            if not token[0].isspace():
                tokens.append(Token(token.lastgroup, token[0], token.start()))
            open_brackets += (token[0] in "([{") - (token[0] in ")]}")
            if len(tokens) > MAX_TAG_TOKENS:
                at = len(source)
        yield opening.start(), tokens


def overlong(source: str) -> int | None:
    """The offset of a tag that is too long: the template parser recurses without a bound along one tag."""
    elifs = [match.start() for match in _ELIF.finditer(source)]
    if len(elifs) > MAX_ELIFS:
        return elifs[MAX_ELIFS]
    return next((start for start, tokens in tags(source) if len(tokens) > MAX_TAG_TOKENS), None)


def template_findings(text: Any, path: Path) -> Iterator[Finding]:
    """The mistake in a template, if there is one."""
    if not isinstance(text, str):
        return
    at = overlong(text)
    message = f"the template has a tag of more than {MAX_TAG_TOKENS} parts, or more than {MAX_ELIFS} `elif`"
    if at is None:
        try:
            return minijinja.Environment().add_template("template", text)
        except minijinja.TemplateError as error:
            at = len(text.encode()[: error.range[0] if error.range else 0].decode(errors="ignore"))
            message = f"the template is malformed: {error.detail or error.message}"
    before = text[:at].split("\n")
    yield Finding(message, path, line=len(before), column=len(before[-1]) + 1)


def findings_within(value: Any, path: Path) -> Iterator[Finding]:
    """The mistakes in the templates that a value holds."""
    for part, part_path in parts_of(value, path):
        yield from template_findings(part, part_path)


def loop_name_findings(name: Any, path: Path) -> Iterator[Finding]:
    """The mistake in the name of a loop's items, if there is one."""
    if not isinstance(name, str):
        return
    if not name.isidentifier() or keyword.iskeyword(name):
        yield Finding(f"{shown(name)} cannot be a name in Python", path)
    elif name in RESERVED_NAMES:
        yield Finding(f"{name!r} has a meaning of its own, like {any_of(list(RESERVED_NAMES))}", path)


def parts_of(value: Any, path: Path) -> Iterator[tuple[Any, Path]]:
    """The value and all its parts, in order. Without recursion, as the author decides how deep it is."""
    pending = [(value, path)]
    while pending:
        value, path = pending.pop()
        yield value, path
        if isinstance(value, dict | list):
            members = value.items() if isinstance(value, dict) else enumerate(value)
            pending += reversed([(member, (*path, key)) for key, member in members])
