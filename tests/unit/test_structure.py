"""A file of the package is one concept, named by known words; tests reach for nothing private in it.

Words are known to everybody or in the glossary. Tests change no constant either. What is public is listed,
and the blocking client is current.
"""

import ast
import re
import shutil
import sys
import tomllib
from pathlib import Path

import runglass
from tools import twins

SOURCE = Path(runglass.__file__).parent
TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs"
GLOSSARIES = {"concepts.md": "## Glossary", "architecture.md": "## Words of the code"}
"""For users, and for those who read the code."""

MOST_LINES = 300
REASON = f"More than {MOST_LINES} lines: "
"""How a sentence in a module's docstring begins that says why the file is one."""

COMMON = """
address admin ai aio alignment answer api app append argument assets asyncio attachments attributes
authentication backend base blocking body bootstrap bounds builder byte cache cancel catalog check cli client
clock code collector columns command compare composition concurrency condition config connection core cost
creation cursor data database defaults delete demo diagnostics did digest doctor driver endpoint engine error
example exchange execute exit failure file folder forest formatting frames gateway gc gen grpc header health
helpers http imported index instrumentation integrity json keywords known lazy limits lines list listener
local login look loop maintenance mapping mean measurements memory message metrics middleware migration money
names native nats on open openapi options otlp outcomes output overview own pagination parameters parser
parsing parts patterns payload perfetto policy pool postgres process processes program progress quick reader
receiver records redact redactor references removal request response routes routing rows rules runner runtime
safe sandbox schema security serve server services settings show sockets span spec sql sqlite sse state
statements stream styles sums supervision support synonyms syntax table task template terminal terminate
testing text threads tools transform transport tree types values vendor view watch watcher wire without you
"""
"""Words of names that need no explanation to whoever knows Python, HTTP and SQL."""


def singular(word: str) -> str:
    return word.removesuffix("s")


def test_every_word_of_a_module_s_name_is_in_the_glossary_or_common() -> None:
    known = set(map(singular, COMMON.split()))
    for page, title in GLOSSARIES.items():
        glossary = (DOCS / page).read_text("utf-8").partition(title)[2].partition("\n## ")[0]
        for entry in re.findall(r"^\| ([^|]+) \|", glossary, re.MULTILINE):
            known.update(map(singular, re.findall(r"[a-z]+", entry.lower())))
    unknown: dict[str, Path] = {}
    for path in SOURCE.rglob("*"):
        if not path.name.startswith("__") and (path.is_dir() or path.suffix == ".py"):
            unknown |= {word: path for word in path.stem.split("_") if singular(word) not in known}
    assert not unknown, f"explain them in a glossary, {GLOSSARIES}, or take better words: {unknown}"


def test_a_long_file_says_in_its_docstring_why_it_is_one() -> None:
    """A file that is one table may be long; any other is split by concept."""
    sources = sorted(SOURCE.rglob("*.py"))
    assert sources
    unexplained = []
    for source in sources:
        text = source.read_text(encoding="utf-8")
        is_long = text.count("\n") > MOST_LINES
        if not is_long and REASON not in " ".join(text.split()):
            continue
        docstring = " ".join((ast.get_docstring(ast.parse(text)) or "").split())
        if is_long != (REASON in docstring):
            unexplained.append(f"{source.name}: {text.count(chr(10))} lines")
    assert not unexplained, f"split these files, or begin a sentence of their docstrings by {REASON!r}"


CONSTANT = r"[A-Z][A-Z0-9_]*"
DEFINED = re.compile(rf"^ *({CONSTANT}(?:, {CONSTANT})*)(?:: [^=\n]+)? = ", re.MULTILINE)
"""Where a module or a class defines constants."""
CHANGED = re.compile(
    rf"\.({CONSTANT})(?: \W?=|: .* =|, .* =) |\bdel .*\.({CONSTANT})\b"
    r"|(?:setattr|delattr|patch|object)\((?:\s*\S+[\])],)?[^'\"]*"
    rf"['\"](?:[\w.]+\.)?({CONSTANT}|_[a-zA-Z]\w*)['\"]"
    r"|['\"]([A-Z0-9]+_[A-Z0-9_]*)['\"]: |['\"](_[a-z]\w*)['\"]"
    r"|\bfrom runglass\S* import (?:\([^)]*|.*)\b(_[a-zA-Z]\w*)"
)
"""Where one may be given another value: also a key of a dictionary, through which a loop may go.

And where a private part of the package may, is named by a text, or is imported: what ruff does not see.
"""


def names(pattern: re.Pattern[str], text: str) -> set[str]:
    return {found[found.lastindex or 0] for found in pattern.finditer(text)}


def texts(*folders: Path) -> dict[Path, str]:
    return {path: path.read_text("utf-8") for folder in folders for path in folder.rglob("*.py")}


def test_no_test_changes_a_constant_or_names_a_private_part() -> None:
    root = TESTS.parent
    ours = texts(TESTS, root / "bench", root / "tools")
    lines = {line for text in (texts(SOURCE) | ours).values() for line in names(DEFINED, text)}
    constants = {name for line in lines for name in line.split(", ")}
    assert len(constants) > 500
    found = {
        path.relative_to(root).as_posix(): uses
        for path, text in ours.items()
        if (uses := {name for name in names(CHANGED, text) if name in constants or name.startswith("_")})
    }
    assert not found, (
        f"{found}: let what reads the constant take an argument that has it as its default, and give it the"
        " value of the test; for a limit deep inside of a server there is `runtime.runtime:FixedLimits`"
    )


PUBLIC: list[str] = vars(runglass)["__all__"]


def test_the_list_is_sorted_and_complete_and_type_checkers_see_what_the_program_gets() -> None:
    seen = ["__version__"]
    for node in ast.walk(ast.parse((SOURCE / "__init__.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("runglass."):
            for alias in node.names:
                seen.append(alias.name)
                assert getattr(runglass, alias.name) is getattr(sys.modules[node.module], alias.name)
    assert sorted(seen) == PUBLIC
    assert set(PUBLIC) <= set(dir(runglass))


def test_every_exception_is_a_runglass_error() -> None:
    kinds = [kind for name in PUBLIC if isinstance(kind := getattr(runglass, name), type)]
    assert all(issubclass(kind, runglass.RunglassError) for kind in kinds if issubclass(kind, Exception))


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((TESTS.parent / "pyproject.toml").read_text())["project"]
    assert runglass.__version__ == project["version"]


def test_the_blocking_client_is_current() -> None:
    assert list(twins.differences()) == []


def test_a_source_that_changes_is_seen(tmp_path: Path) -> None:
    shutil.copytree(twins.CLIENT, tmp_path, dirs_exist_ok=True)
    runs = tmp_path / "aio" / "runs.py"
    runs.write_text(runs.read_text("utf-8").replace("requests.trace(", "requests.job("), "utf-8")
    (changed,) = (line for line in twins.differences(tmp_path) if line.startswith("+ "))
    assert "requests.job(" in changed
