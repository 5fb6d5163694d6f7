"""Proves that the blocking client and its asyncio twin are one program: `make check` runs it.

Each asyncio class and function is rewritten to its blocking form, tree by tree, bodies and docstrings
included, and must be its twin to the letter. What differs for a reason is named below with that reason.
"""

import ast
import difflib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

API = Path(__file__).parents[1] / "src" / "runglass" / "client" / "api"
CORE = API.parent / "core"


class Twins(NamedTuple):
    """A blocking definition and that on asyncio; `apart` has the members that differ, and why."""

    blocking: tuple[Path, str]
    asyncio: tuple[Path, str]
    apart: Mapping[str, str] = {}


LAZILY = "the blocking client loads the HTTP library with the first call, that on asyncio when it is made"

TWINS = [
    Twins(
        (API / "client.py", "Client"),
        (API / "async_client.py", "AsyncClient"),
        apart={
            "__init__": LAZILY,
            "_transport": LAZILY,
            "__repr__": LAZILY,
            "close": LAZILY,
            "runs": "a page is a value where a call blocks, and awaited or looped over where it does not",
        },
    ),
    Twins((API / "flows.py", "Flow"), (API / "async_flows.py", "AsyncFlow")),
    Twins(
        (API / "runs.py", "Run"),
        (API / "runs.py", "AsyncRun"),
        apart={"__str__": "on asyncio nobody can wait for the server while a text is made"},
    ),
    Twins((API / "jobs.py", "Job"), (API / "jobs.py", "AsyncJob")),
    Twins((API / "pauses.py", "PausedResult"), (API / "pauses.py", "AsyncPausedResult")),
    Twins((API / "pauses.py", "converse"), (API / "pauses.py", "async_converse")),
    Twins((API / "pauses.py", "events_of"), (API / "pauses.py", "async_events_of")),
    Twins((API / "pauses.py", "steps_of"), (API / "pauses.py", "async_steps_of")),
    Twins((API / "pauses.py", "_end_call"), (API / "pauses.py", "_async_end_call")),
]

NAMES = {
    "AsyncTransport": "SyncTransport",
    "AsyncGenerator": "Generator",
    "on_asyncio": "blocking",
    "async_flows": "flows",
    "async_client": "client",
    "aclosing": "closing",
    "aclose": "close",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
}


class Blocking(ast.NodeTransformer):
    """The blocking form of a tree."""

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        self.generic_visit(node)
        parts = {field: getattr(node, field) for field in node._fields}
        return ast.FunctionDef(**{**parts, "name": _name(node.name)})

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.name = _name(node.name)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.generic_visit(node)
        node.name = _name(node.name)
        return node

    def visit_Await(self, node: ast.Await) -> ast.AST:
        self.generic_visit(node)
        return node.value

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        self.generic_visit(node)
        return ast.For(**{field: getattr(node, field) for field in node._fields})

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        self.generic_visit(node)
        return ast.With(**{field: getattr(node, field) for field in node._fields})

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = _name(node.id)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        node.attr = _name(node.attr)
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, str):
            # Prose may speak of the other client.
            is_name = node.value.isidentifier()
            node.value = re.sub(
                r"\w+",
                lambda word: word[0] if word[0] == "AsyncClient" and not is_name else _name(word[0]),
                node.value,
            )
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        self.generic_visit(node)
        if node.arg == "blocking" and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(value=not node.value.value)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        is_generator = isinstance(node.value, ast.Name) and node.value.id == "AsyncGenerator"
        self.generic_visit(node)
        if is_generator and isinstance(node.slice, ast.Tuple):
            node.slice.elts.append(ast.Constant(value=None))
        return node


class Plain(ast.NodeTransformer):
    """One way to say a thing: `for each in them: yield each` is `yield from them`."""

    def visit_For(self, node: ast.For) -> ast.AST:
        self.generic_visit(node)
        match node:
            case ast.For(ast.Name(name), _, [ast.Expr(ast.Yield(ast.Name(yielded)))], []) if name == yielded:
                return ast.Expr(ast.YieldFrom(node.iter))
        return node


def _name(name: str) -> str:
    if name in NAMES:
        return NAMES[name]
    return re.sub(r"^(_?)(Async(?=[A-Z])|async_)", r"\1", name)


def definition(place: tuple[Path, str]) -> ast.stmt:
    """The class or function of that name in that file."""
    path, name = place
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return node
    raise SystemExit(f"{path.name} has no {name}")


def lines_of(node: ast.stmt, *, apart: Mapping[str, str]) -> list[str]:
    """The definition in one spelling, without the members that differ."""
    if isinstance(node, ast.ClassDef):
        node.body = [each for each in node.body if getattr(each, "name", "") not in apart]
    return ast.unparse(ast.fix_missing_locations(Plain().visit(node))).splitlines()


def differences(pairs: Sequence[Twins] = TWINS) -> Iterator[str]:
    """What is not the same, as lines of a diff."""
    for twins in pairs:
        blocking = lines_of(definition(twins.blocking), apart=twins.apart)
        asyncio = lines_of(Blocking().visit(definition(twins.asyncio)), apart=twins.apart)
        yield from difflib.unified_diff(
            asyncio, blocking, f"{twins.asyncio[1]}, made blocking", twins.blocking[1], lineterm="", n=2
        )


if __name__ == "__main__":
    found = list(differences())
    sys.stdout.write("\n".join([*found, ""]) if found else f"{len(TWINS)} pairs of twins are one\n")
    sys.exit(bool(found))
