"""Code and expressions made ready for the sandbox, with the names that they mention.

The sandbox runs a program, and a step's code is the body of a function: its `return` becomes the end of the
program, and what is returned is written as text by Python that goes ahead of it. Nothing is run here.
Python's parser reads the code, and its text is edited in place, so that every line keeps its number and every
string its content. Most expressions and templates are only a path into the names, like
`steps.fetch.items[0]`: that is looked up without an interpreter.
"""

import ast
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from runglass.errors import StepFailure
from runglass.flows.syntax import parse_python
from runglass.support.byte_cache import ByteCache


class Path(NamedTuple):
    """`root` is a name; each step a key of an object or an index of a list."""

    root: str
    steps: tuple[str | int, ...] = ()


class _Nowhere:
    """Where a path leads that cannot be followed to its end."""


NOWHERE: Final = _Nowhere()


def look_up(path: Path, names: Mapping[str, Any]) -> Any:
    """The value itself, not a copy, or `NOWHERE`: evaluating the whole expression then tells why."""
    value: Any = names.get(path.root, NOWHERE)
    for step in path.steps:
        try:
            # Only what JSON is made of: an index of a string is a matter for the evaluator.
            value = value[step] if isinstance(value, dict | list) else NOWHERE  # type: ignore[index]
        except (LookupError, TypeError):
            return NOWHERE
    return value


CODE_LIMIT = 100_000
"""Characters. Python's parser needs a tenth of a second for as much, in this process."""
QUICK = 8 * 1024
"""Characters of code that the event loop may wait for."""
WRITER = f"_runglass_{secrets.token_hex(8)}"
"""The function, there before the program runs, that makes text of a result; no code has its name by chance.

Code that finds it out, which takes `exec` and `locals`, gains nothing: every result is read as JSON within
the same limits.
"""


class Program(NamedTuple):
    """Code as the sandbox gets it, and the names that it mentions."""

    source: str
    names: frozenset[str]


# Joining makes text of it even where the code put its own function in place of ours.
_OPEN, _CLOSE = f' "".join([{WRITER}(('.encode(), b"))])"
_NOTHING = _OPEN + b"None" + _CLOSE


def _parsed(code: str, mode: Literal["exec", "eval"]) -> ast.AST:
    if len(code) > CODE_LIMIT:
        raise StepFailure(
            "CODE_ERROR", f"the code has {len(code)} characters; the limit is {CODE_LIMIT}", may_retry=False
        )
    try:
        return parse_python(code, mode)
    except SyntaxError as error:
        line: int | None
        name, message, line = type(error).__name__, error.msg, max(error.lineno or 1, 1)
    except (ValueError, MemoryError, RecursionError) as error:
        name, line = "SyntaxError", None
        message = str(error) if isinstance(error, ValueError) else "too deeply nested"
    where = "" if line is None else f" (line {line})"
    raise StepFailure(
        "CODE_ERROR", f"{name}: {message}{where}", may_retry=False, details={"exception": name, "line": line}
    )


def _names(tree: ast.AST) -> frozenset[str]:
    return frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))


def _read_body(code: str) -> Program:
    tree = _parsed(code, "exec")
    lines = code.replace("\r\n", "\n").replace("\r", "\n").encode().split(b"\n")
    for line, column, removed, text in sorted(_edits(tree), reverse=True):
        before = lines[line - 1]
        lines[line - 1] = before[:column] + text + before[column + removed :]
    return Program(b"\n".join([*lines, b"return" + _NOTHING]).decode(), _names(tree))


def _edits(tree: ast.AST) -> Iterator[tuple[int, int, int, bytes]]:
    """A change: line, column in bytes, how many of them go, the text that comes instead."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Return):
            start = node.col_offset + len("return")
            if node.value is None:
                yield node.lineno, start, 0, _NOTHING
            else:
                yield node.lineno, start, 0, _OPEN
                yield node.end_lineno or 0, node.end_col_offset or 0, 0, _CLOSE
        elif isinstance(node, Scope):
            # The variables of the body are globals of the program; whoever changes them inside must say so.
            for inner, free in _nonlocals(node, frozenset()):
                others = [name for name in inner.names if name not in free]
                if free and others:
                    names = f"global {', '.join(free)}; nonlocal {', '.join(others)}; lambda: ("
                    yield inner.lineno, inner.col_offset, len("nonlocal"), names.encode()
                    yield inner.end_lineno or 0, inner.end_col_offset or 0, 0, b")"
                elif free:
                    yield inner.lineno, inner.col_offset, len("nonlocal"), b"global"
        elif not isinstance(node, ast.expr):
            pending.extend(ast.iter_child_nodes(node))


Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _nonlocals(scope: Scope, around: frozenset[str]) -> Iterator[tuple[ast.Nonlocal, list[str]]]:
    """Each `nonlocal` inside, and those of its names that are not variables of functions `around` it."""
    inner: list[Scope] = []
    arguments = () if isinstance(scope, ast.ClassDef) else ast.iter_child_nodes(scope.args)
    bound = {each.arg for each in arguments if isinstance(each, ast.arg)}
    of_others = set[str]()
    pending: list[ast.AST] = [*scope.body]
    while pending:
        node = pending.pop()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                bound.add(node.name)
                inner.append(node)
                # Its decorators and default values are expressions of the code around it.
                pending += [each for each in ast.iter_child_nodes(node) if not isinstance(each, ast.stmt)]
                continue
            case ast.Lambda():
                pending.append(node.args)
                continue
            case ast.comprehension():
                # Its target is a variable of its own.
                pending += [node.iter, *node.ifs]
                continue
            case ast.Nonlocal():
                of_others.update(node.names)
                yield node, [name for name in node.names if name not in around]
            case ast.Global():
                of_others.update(node.names)
            case ast.Name(ctx=ast.Store()):
                bound.add(node.id)
            case ast.alias():
                bound.add(node.asname or node.name.partition(".")[0])
            case ast.ExceptHandler() | ast.MatchAs() | ast.MatchStar() if node.name:
                bound.add(node.name)
            case ast.MatchMapping(rest=str(name)):
                bound.add(name)
        pending.extend(ast.iter_child_nodes(node))
    if inner and not isinstance(scope, ast.ClassDef):
        around |= bound - of_others
    for each in inner:
        yield from _nonlocals(each, around)


def _read_expression(expression: str) -> Program:
    expression = expression.strip()
    names = _names(_parsed(expression, "eval"))
    return Program(f"return{_OPEN.decode()}{expression}\n{_CLOSE.decode()}", names)


def _read_path(expression: str) -> Path | None:
    node: ast.AST = getattr(_parsed(expression.strip(), "eval"), "body", ast.Pass())
    steps: list[str | int] = []
    while isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        key = node.slice.value
        if type(key) is not str and type(key) is not int:
            return None
        steps.insert(0, key)
        node = node.value
    return Path(node.id, tuple(steps)) if isinstance(node, ast.Name) else None


of_body = ByteCache(_read_body, times=3, share=0.03)
"""The body of a function as a program that ends with its first `return`, on the same lines.

Text is put in only around what is returned; indenting all of it would change strings of several lines.
"""
of_expression = ByteCache(_read_expression, times=3, share=0.01)
"""An expression as a program that ends with its value."""
as_path = ByteCache(_read_path, times=3, share=0.01)
"""The expression as a path, if it is a name or an item of one, like `a["b"][0]`. Raises StepFailure."""


RESULT_WRITER = f"""
from json import dumps as {WRITER}_json

def {WRITER}(
    value, dumps={WRITER}_json, isinstance=isinstance, enumerate=enumerate, repr=repr, str=str, dict=dict,
    list=list, tuple=tuple, TypeError=TypeError, ValueError=ValueError,
):
    text, reason = "", ""
    try:
        text = dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        reason = str(error)
        if reason.startswith("Circular"):
            return "\\0\\0" + reason
    pending = [(value, None)]
    while pending:
        value, path = pending.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                if not isinstance(key, str):
                    reason = "the key " + repr(key) + " is not a string"
                    break
                if reason or isinstance(inner, (dict, list, tuple)):
                    pending.append((inner, (path, "." + key)))
            else:
                continue
        elif isinstance(value, (list, tuple)):
            for index, inner in enumerate(value):
                if reason or isinstance(inner, (dict, list, tuple)):
                    pending.append((inner, (path, "[" + str(index) + "]")))
            continue
        else:
            try:
                dumps(value, allow_nan=False)
                continue
            except (TypeError, ValueError) as error:
                reason = str(error)
        place = ""
        while path is not None:
            path, step = path
            place = step[:100] + place
        return "\\0" + place + "\\0" + reason
    return "\\0\\0" + reason if reason else text
"""
# All dicts are looked through, also where `dumps` was content: it turns other keys into strings.
RESULT_LINES = RESULT_WRITER.count("\n")
RESULT_USES = {"isinstance", "enumerate", "repr", "str", "dict", "list", "tuple", "TypeError", "ValueError"}
"""Names of Python that the writer needs, and that a field of an input may hide."""
