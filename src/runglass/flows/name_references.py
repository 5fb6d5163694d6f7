"""Names in templates, code and expressions that the text does not bind itself: a step has to give them."""

import ast
import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import minijinja

from runglass.flows.diagnostics import Path
from runglass.flows.step_references import Written, texts_of
from runglass.flows.syntax import overlong, parse_python

_WORD = re.compile(r"[A-Za-z_]\w*")
_OWN_WORD = re.compile(rf"(?<![\w.]){_WORD.pattern}")
_QUESTION = re.compile(r"\b(?:defined|undefined|default)\b")
_BINDING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


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
    for text, written, place in texts_of(step, path):
        # Most texts have none of the words; only the others are parsed.
        words = set(_WORD.findall(text)) if isinstance(text, str) else set()
        if sought is not None:
            words &= sought
        if words:
            found = _in_template(text, words) if written == "template" else _in_python(text, written, words)
            yield from ((name, place) for name in found)


def _in_template(text: str, sought: AbstractSet[str]) -> Iterator[Name]:
    if overlong(text) is not None or _QUESTION.search(text):
        return
    try:
        names = minijinja.Environment().undeclared_variables_in_str(text)
    except minijinja.TemplateError:
        # A finding of `flows/syntax.py`.
        return
    begin = max(text.find("{{"), 0)
    # The library tells no place; the first such word that is no field of another stands for it.
    first: dict[str, int] = {}
    for word in _OWN_WORD.finditer(text, begin):
        first.setdefault(word[0], word.start())
    for name in sorted(sought & names):
        offset = first.get(name, begin)
        yield Name(name, text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))


def _in_python(text: str, written: Written, sought: AbstractSet[str]) -> Iterator[Name]:
    try:
        tree = parse_python(text, "eval" if written == "eval" else "exec")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        # A finding of `flows/syntax.py`.
        return
    used: dict[str, Name] = {}
    bound: set[str] = set()
    lines = text.encode().split(b"\n")
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()) if name in sought and name not in used:
                before = lines[node.lineno - 1][: node.col_offset] if node.lineno <= len(lines) else b""
                used[name] = Name(name, node.lineno, len(before.decode(errors="ignore")) + 1, written)
            case ast.Name(id=name) | ast.arg(arg=name):
                bound.add(name)
            case ast.alias(name=name, asname=other):
                bound.add(other or name.partition(".")[0])
            case ast.ExceptHandler(name=str() as name) | ast.MatchAs(name=str() as name):
                bound.add(name)
            case ast.MatchStar(name=str() as name) | ast.MatchMapping(rest=str() as name):
                bound.add(name)
            case _ if isinstance(node, _BINDING):
                bound.add(node.name)
    yield from (found for name, found in used.items() if name not in bound)
