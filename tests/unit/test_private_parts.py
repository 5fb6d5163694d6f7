"""Tests use Runglass as its callers do: none reaches for a private name, and none changes a constant."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import runglass

SOURCE = Path(runglass.__file__).parent
TESTS = Path(__file__).parents[1]
ALLOWED = {"unit/test_others_parts.py": "pins private parts of httpx2, some of which are called like ours"}
DEFINED = re.compile(r"^ *([A-Z][A-Z0-9_]*(?:, [A-Z][A-Z0-9_]*)*)(?:: [^=\n]+)? = ", re.MULTILINE)
"""Where a module or a class defines constants."""
MAY_CHANGE = re.compile(r"setattr|delattr|patch|\.[A-Z][A-Z0-9_]* \W?= |['\"][A-Z0-9_]+['\"]: ")
PATCHING = {"setattr", "delattr", "object", "patch"}
OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}
"""Names that Python's documentation has for everybody."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def defined(tree: ast.AST) -> Iterator[str]:
    """Private names that the code gives to a function, a class, a variable or an attribute."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                pass
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                pass
            case _:
                continue
        if is_private(name):
            yield name


def reached_for(tree: ast.AST, privates: set[str]) -> Iterator[str]:
    """`LINE: NAME` for each use of one of these names that the code has not given itself."""
    foreign = privates - set(defined(tree))
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] == "runglass":
                found = [part for part in [*module.split("."), *(n.name for n in names)] if is_private(part)]
            case ast.Attribute(attr=name) if name in foreign:
                found = [name]
            # As in `monkeypatch.setattr(module, "_name", …)`.
            case ast.Constant(value=str(text)) if text.rpartition(".")[2] in foreign:
                found = [text]
            case _:
                continue
        yield from (f"{node.lineno}: {name}" for name in found)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def test_no_test_reaches_into_a_private_part_of_the_package() -> None:
    privates = {name for path in SOURCE.rglob("*.py") for name in defined(parsed(path))} - OF_NAMED_TUPLES
    found = {}
    for path in sorted({*TESTS.rglob("*.py")} - {Path(__file__)}):
        if not privates & set(re.findall(r"\b_\w+", path.read_text("utf-8"))):
            continue
        if uses := list(reached_for(parsed(path), privates)):
            found[path.relative_to(TESTS).as_posix()] = uses
    assert len(privates) > 100
    assert {file: uses for file, uses in found.items() if file not in ALLOWED} == {}
    assert set(found) == set(ALLOWED), "what is allowed is needed"


def changed(tree: ast.AST, constants: set[str]) -> Iterator[str]:
    """`LINE: NAME` for each of these constants that the code gives another value."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name), args=[*args]) if (
                name in PATCHING
            ):
                literals = [each.value for each in args[:2] if isinstance(each, ast.Constant)]
                # As in `patch("runglass.module.LIMIT", 1)`.
                found = [str(each).rpartition(".")[2] for each in literals]
            case ast.Dict(keys=keys):
                # Names that a loop may go through; words in capitals may be anything.
                found = [str(each.value) for each in keys if isinstance(each, ast.Constant)]
                found = [name for name in found if "_" in name]
            case ast.Attribute(attr=name, ctx=ast.Store() | ast.Del()):
                found = [name]
            case _:
                continue
        yield from (f"{node.lineno}: {name}" for name in found if name in constants)


def test_no_test_changes_a_constant() -> None:
    root = TESTS.parent
    texts = {
        path: path.read_text("utf-8")
        for folder in (SOURCE, TESTS, root / "bench", root / "tools")
        for path in folder.rglob("*.py")
    }
    names = [line for text in texts.values() for line in DEFINED.findall(text)]
    constants = {name for line in names for name in line.split(", ")}
    found = {
        path.relative_to(root).as_posix(): uses
        for path, text in texts.items()
        if SOURCE not in path.parents and MAY_CHANGE.search(text)
        if (uses := list(changed(ast.parse(text), constants)))
    }
    assert len(constants) > 500
    assert not found, (
        f"{found}: let what reads the constant take an argument that has it as its default, and give it the"
        " value of the test; for a limit deep inside of a server there is `runtime.runtime:FixedLimits`"
    )
