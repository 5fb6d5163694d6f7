"""What templates, code and expressions refer to: outputs of steps, inputs of the run, and names.

`steps["id"]` and `initial["name"]` are references. A name that the text does not bind itself has to come from
a step.
"""

import ast
import builtins
import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from itertools import pairwise, zip_longest
from typing import Any, Literal, NamedTuple, assert_never

import minijinja

from runglass.flows.diagnostics import Path
from runglass.flows.syntax import Token, overlong, parse_python, parts_of, syntaxes, tags

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
    for text, written, text_path in texts_of(step, path):
        known = set()
        found = _in_template(text, root) if written == "template" else _in_python(text, written, root)
        for reference in found:
            mentioned = reference.key, reference.as_field
            if mentioned not in known:
                known.add(mentioned)
                yield reference, text_path


def texts_of(step: dict[str, Any], path: Path) -> Iterator[tuple[Any, Written, Path]]:
    """The step's own texts that may refer to something, with their paths; they may be no texts at all."""
    for name, syntax in syntaxes(step.get("type")).items():
        value, value_path = step.get(name), (*path, name)
        match syntax:
            case "template":
                yield value, "template", value_path
            case "templates":
                yield from ((part, "template", inner) for part, inner in parts_of(value, value_path))
            case "code":
                yield value, "exec", value_path
            case "expression":
                yield value, "eval", value_path
            case "variable" | "model" | "schema":
                # Nothing in them is evaluated.
                pass
            case _:
                assert_never(syntax)


_CONDITIONS = frozenset({"if", "elif", "else", "and", "or"})
_QUESTIONS = frozenset({"defined", "undefined", "default"})


def _undeclared(text: str, *, nested: bool = False) -> set[str]:
    """The names that a template does not bind itself; none for one that is a finding of `flows/syntax.py`."""
    try:
        found = minijinja.Environment().undeclared_variables_in_str(text, nested=nested)
    except minijinja.TemplateError:
        return set()
    return set(found)


def _in_template(text: Any, root: str) -> Iterator[Reference]:
    if not isinstance(text, str) or root not in text or overlong(text) is not None:
        return
    names = _undeclared(text, nested=True)
    # A template may have a variable of its own of that name; minijinja knows.
    fields = {parts[1] for name in names if len(parts := name.split(".")) > 1 and parts[0] == root}
    tokenized = [tokens for _, tokens in tags(text)]
    words = {token.text for tokens in tokenized for token in tokens if token.kind == "name"}
    pairs = {(before.text, after.text) for tokens in tokenized for before, after in pairwise(tokens)}
    asked = not words.isdisjoint(_QUESTIONS) or not pairs.isdisjoint({("in", root), ("|", "d")})
    depends = not words.isdisjoint(_CONDITIONS)
    at, line, start = 0, 1, 0
    for name, is_key, offset in (found for tokens in tokenized for found in _mentioned(tokens, root)):
        # The search goes on from the last mention, so that a long text is read once.
        line += text.count("\n", at, offset)
        start = max(start, text.rfind("\n", at, offset) + 1)
        at = offset
        if name in fields or (is_key and root in names):
            yield Reference(name, line, offset - start + 1, asked, depends)


def _mentioned(tag: list[Token], root: str) -> Iterator[tuple[str, bool, int]]:
    """`steps.name` and `steps["name"]`: the name, whether it is a key, and where it stands."""
    for position, token in enumerate(tag):
        if token.kind != "name" or token.text != root:
            continue
        if position and tag[position - 1].text in (".", "|"):
            continue
        match tag[position + 1 : position + 4]:
            case [Token(text="."), Token(kind="name", text=name), *more]:
                if not (name in _METHODS and more and more[0].text == "("):
                    yield name, False, token.offset
            case [Token(text="["), Token(kind="text", text=key), Token(text="]")] if "\\" not in key:
                yield key[1:-1], True, token.offset


_CONDITIONAL = (ast.If, ast.IfExp, ast.BoolOp, ast.Try, ast.While, ast.Match, ast.comprehension, ast.For)


def _nodes(text: str, mode: Literal["exec", "eval"]) -> list[ast.AST]:
    """The parts of a text in Python; none for one that is a finding of `flows/syntax.py`."""
    try:
        return list(ast.walk(parse_python(text, mode)))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return []


def _column(lines: list[bytes], node: ast.expr) -> int:
    """Where the node begins in its line, in characters from 1; Python counts bytes."""
    before = lines[node.lineno - 1][: node.col_offset] if node.lineno <= len(lines) else b""
    return len(before.decode(errors="ignore")) + 1


def _bound(node: ast.AST) -> str | None:
    """The name that this part of the code gives to something of its own, if it does."""
    match node:
        case ast.Name(id=name) if not isinstance(node.ctx, ast.Load):
            return name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.arg(arg=name):
            return name
        case ast.alias(name=name, asname=other):
            return other or name.partition(".")[0]
        case ast.ExceptHandler(name=given) | ast.MatchAs(name=given) | ast.MatchStar(name=given):
            return given
        case ast.MatchMapping(rest=given):
            return given
    return None


def _in_python(text: Any, mode: Literal["exec", "eval"], root: str) -> Iterator[Reference]:
    if not isinstance(text, str) or root not in text:
        return
    nodes = _nodes(text, mode)
    if any(_bound(node) == root for node in nodes):
        return
    compares = [node for node in nodes if isinstance(node, ast.Compare)]
    asked = any(isinstance(node, ast.Try) for node in nodes) or any(
        isinstance(operator, ast.In | ast.NotIn) and isinstance(right, ast.Name) and right.id == root
        for node in compares
        for operator, right in zip(node.ops, node.comparators, strict=True)
    )
    depends = any(isinstance(node, _CONDITIONAL) for node in nodes)
    lines = text.encode().split(b"\n")
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
        yield found._replace(column=_column(lines, node))


_WORD = re.compile(r"[A-Za-z_]\w*")
_OWN_WORD = re.compile(rf"(?<![\w.]){_WORD.pattern}")
_QUESTION = re.compile(r"\b(?:defined|undefined|default)\b")
_FUNCTIONS = frozenset(minijinja.Environment().globals)


class Name(NamedTuple):
    """A name in a text, and where it stands first."""

    name: str
    line: int | None
    column: int = 1
    written: Written = "template"


def name_references(
    step: dict[str, Any], path: Path, sought: AbstractSet[str] | None = None
) -> Iterator[tuple[Name, Path]]:
    """The names among `sought`, or all, that a step's own texts use, each once per text."""
    for text, written, text_path in texts_of(step, path):
        # Most texts have none of the words; only the others are parsed.
        words = set(_WORD.findall(text)) if isinstance(text, str) else set()
        if sought is not None:
            words &= sought
        if words:
            found = (
                _names_in_template(text, words)
                if written == "template"
                else _names_in_python(text, written, words)
            )
            yield from ((name, text_path) for name in found)


def _names_in_template(text: str, sought: AbstractSet[str]) -> Iterator[Name]:
    if overlong(text) is not None or _QUESTION.search(text):
        return
    begin = max(text.find("{{"), 0)
    # The library tells no position; the first such word that is no field of another stands for it.
    first: dict[str, int] = {}
    for word in _OWN_WORD.finditer(text, begin):
        first.setdefault(word[0], word.start())
    # A function of templates is meant where it is called, whatever the name of a step.
    used = {
        token.text
        for _, tokens in tags(text)
        for token, after in zip_longest(tokens, tokens[1:])
        if after is None or after.text != "("
    }
    for name in sorted((sought & _undeclared(text)) - (_FUNCTIONS - used)):
        offset = first.get(name, begin)
        yield Name(name, text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))


def _names_in_python(text: str, written: Literal["exec", "eval"], sought: AbstractSet[str]) -> Iterator[Name]:
    nodes = _nodes(text, written)
    bound_or_told = {_bound(node) for node in nodes}
    lines = text.encode().split(b"\n")
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    for node in nodes:
        if not isinstance(node, ast.Name) or node.id not in sought or node.id in bound_or_told:
            continue
        # Python's own function is meant where it is called, whatever the name of a step.
        if not (id(node) in called and hasattr(builtins, node.id)):
            bound_or_told.add(node.id)
            yield Name(node.id, node.lineno, _column(lines, node), written)
