"""The references to outputs of steps and inputs of the run in templates, code and expressions.

They are `steps["id"]` and `initial["name"]`.
"""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal, NamedTuple, assert_never

import minijinja

from runglass.flows.diagnostics import Path
from runglass.flows.step_syntax import syntaxes
from runglass.flows.syntax import overlong, parse_python, parts_of

STEPS = "steps"
INITIAL = "initial"
Written = Literal["template", "exec", "eval"]
"""What a text is written in: a template, the body of a function in Python, or an expression."""

_METHODS = frozenset(name for name in dir(dict) if not name.startswith("_"))


class Reference(NamedTuple):
    """A key in a text. `asked` is true where the text makes sure first that it is there."""

    key: str
    line: int | None
    column: int = 1
    asked: bool = False
    depends: bool = False
    """Whether the text has a condition."""
    as_field: bool = False
    """Whether it is written as `steps.id`, which Python's dictionaries do not have."""


def references_of(step: dict[str, Any], path: Path, root: str = STEPS) -> Iterator[tuple[Reference, Path]]:
    """The references to keys of `root` in a step's own texts, each once per text."""
    for text, written, place in texts_of(step, path):
        found = _in_template(text, root) if written == "template" else _in_python(text, written, root)
        yield from _located(found, place)


def texts_of(step: dict[str, Any], path: Path) -> Iterator[tuple[Any, Written, Path]]:
    """The step's own texts that may refer to something, with their places; they may be no texts at all."""
    for name, syntax in syntaxes(step.get("type")).items():
        value, place = step.get(name), (*path, name)
        match syntax:
            case "template":
                yield value, "template", place
            case "templates":
                yield from ((part, "template", inner) for part, inner in parts_of(value, place))
            case "code":
                yield value, "exec", place
            case "expression":
                yield value, "eval", place
            case "variable" | "model" | "schema":
                # Nothing in them is evaluated.
                pass
            case _:
                assert_never(syntax)


def _located(references: Iterator[Reference], path: Path) -> Iterator[tuple[Reference, Path]]:
    known = set()
    for reference in references:
        mentioned = reference.key, reference.as_field
        if mentioned not in known:
            known.add(mentioned)
            yield reference, path


_TAG = re.compile(
    r"\{#.*?(?:#\}|\Z)|\{%[-+]?\s*raw\s*[-+]?%\}.*?(?:\{%[-+]?\s*endraw\b|\Z)|\{[{%]", re.DOTALL
)
_TOKEN = re.compile(
    r"""(?P<end>[-+]?[}%]\})|(?P<space>\s+)|(?P<text>"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?)|(?P<name>\w+)|.""",
    re.DOTALL,
)
_CONDITIONS = frozenset({"if", "elif", "else", "and", "or"})
_QUESTIONS = frozenset({"defined", "undefined", "default"})


class _Token(NamedTuple):
    kind: str | None
    text: str
    offset: int


def _in_template(text: Any, root: str) -> Iterator[Reference]:
    if not isinstance(text, str) or root not in text or overlong(text) is not None:
        return
    try:
        names = minijinja.Environment().undeclared_variables_in_str(text, nested=True)
    except minijinja.TemplateError:
        # A finding of `flows/syntax.py`.
        return
    # A template may have a variable of its own of that name; minijinja knows.
    fields = {parts[1] for name in names if len(parts := name.split(".")) > 1 and parts[0] == root}
    tags = list(_tags(text))
    words = {token.text for tag in tags for token in tag if token.kind == "name"}
    asked = not words.isdisjoint(_QUESTIONS) or any(_asks_in_tag(tag, root) for tag in tags)
    depends = not words.isdisjoint(_CONDITIONS)
    at, line, start = 0, 1, 0
    for name, is_key, offset in (found for tag in tags for found in _mentioned(tag, root)):
        # The search goes on from the last mention, so that a long text is read once.
        line += text.count("\n", at, offset)
        start = max(start, text.rfind("\n", at, offset) + 1)
        at = offset
        if name in fields or (is_key and root in names):
            yield Reference(name, line, offset - start + 1, asked, depends)


def _tags(text: str) -> Iterator[list[_Token]]:
    """The tokens of each tag of a template, without spaces."""
    at = 0
    while opening := _TAG.search(text, at):
        at = opening.end()
        if len(opening[0]) > 2:
            continue
        tag: list[_Token] = []
        open_braces = 0
        while token := _TOKEN.match(text, at):
            kind, at = token.lastgroup, token.end()
            if kind == "end":
                if open_braces == 0:
                    break
                # A closing brace inside an object literal looks like the end of the tag.
                kind, at = None, token.start() + 1
            said = text[token.start() : at]
            open_braces += (said == "{") - (said == "}")
            if kind != "space":
                tag.append(_Token(kind, said, token.start()))
        yield tag


def _asks_in_tag(tag: list[_Token], root: str) -> bool:
    pairs = [(a.text, b.text) for a, b in pairwise(tag)]
    return ("in", root) in pairs or ("|", "d") in pairs


def _mentioned(tag: list[_Token], root: str) -> Iterator[tuple[str, bool, int]]:
    """`steps.name` and `steps["name"]`: the name, whether it is a key, and where it stands."""
    for position, token in enumerate(tag):
        if token.kind != "name" or token.text != root:
            continue
        if position and tag[position - 1].text in (".", "|"):
            continue
        match tag[position + 1 : position + 4]:
            case [_Token(text="."), _Token(kind="name", text=name), *more]:
                if not (name in _METHODS and more and more[0].text == "("):
                    yield name, False, token.offset
            case [_Token(text="["), _Token(kind="text", text=key), _Token(text="]")] if "\\" not in key:
                yield key[1:-1], True, token.offset


_CONDITIONAL = (ast.If, ast.IfExp, ast.BoolOp, ast.Try, ast.While, ast.Match, ast.comprehension, ast.For)


def _in_python(text: Any, mode: Literal["exec", "eval"], root: str) -> Iterator[Reference]:
    if not isinstance(text, str) or root not in text:
        return
    try:
        tree = parse_python(text, mode)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        # A finding of `flows/syntax.py`.
        return
    nodes = list(ast.walk(tree))
    if any(_binds(node, root) for node in nodes):
        return
    asked = any(isinstance(node, ast.Try) or _asks(node, root) for node in nodes)
    depends = any(isinstance(node, _CONDITIONAL) for node in nodes)
    lines = text.encode().split(b"\n")
    known = set()
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    for node in nodes:
        match node:
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str() as key)) if (
                name == root and isinstance(node.ctx, ast.Load)
            ):
                found = Reference(key, node.lineno, asked=asked, depends=depends)
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=name), attr="get"),
                args=[ast.Constant(value=str() as key), *_],
            ) if name == root:
                found = Reference(key, node.lineno, asked=True, depends=True)
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name == root and not (
                id(node) in called and attribute in _METHODS
            ):
                found = Reference(attribute, node.lineno, asked=asked, depends=depends, as_field=True)
            case _:
                continue
        if (mentioned := (found.key, found.as_field)) in known:
            continue
        known.add(mentioned)
        before = lines[node.lineno - 1][: node.col_offset] if node.lineno <= len(lines) else b""
        yield found._replace(column=len(before.decode(errors="ignore")) + 1)


def _binds(node: ast.AST, root: str) -> bool:
    """Whether the code has a variable of its own of that name."""
    match node:
        case ast.Name(id=name):
            return name == root and not isinstance(node.ctx, ast.Load)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return node.name == root
        case ast.arg(arg=name):
            return name == root
        case ast.alias(name=name, asname=other):
            return root in (other or name.partition(".")[0], name)
        case ast.ExceptHandler(name=name) | ast.MatchAs(name=name) | ast.MatchStar(name=name):
            return name == root
        case ast.MatchMapping(rest=name):
            return name == root
    return False


def _asks(node: ast.AST, root: str) -> bool:
    return isinstance(node, ast.Compare) and any(
        isinstance(operator, ast.In | ast.NotIn) and isinstance(right, ast.Name) and right.id == root
        for operator, right in zip(node.ops, node.comparators, strict=True)
    )
