"""The public surface: its names, where they come from, and what importing it costs."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import runglass

ROOT = Path(runglass.__file__).parent
PUBLIC: list[str] = vars(runglass)["__all__"]


def in_a_fresh_interpreter(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_runglass_loads_no_library() -> None:
    loaded = in_a_fresh_interpreter(
        "import sys; before = set(sys.modules); import runglass\n"
        "names = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(names - sys.stdlib_module_names), names & {'asyncio', 'ssl', 'typing'})"
    )
    assert loaded == "['runglass'] set()"


def test_the_list_is_sorted_complete_and_true() -> None:
    assert sorted(set(PUBLIC)) == PUBLIC
    for name in PUBLIC:
        assert getattr(runglass, name) is not None
    assert set(PUBLIC) <= set(dir(runglass))


def test_type_checkers_see_what_the_program_gets() -> None:
    seen = ["__version__"]
    for node in ast.walk(ast.parse((ROOT / "__init__.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("runglass."):
            for alias in node.names:
                seen.append(alias.name)
                assert getattr(runglass, alias.name) is getattr(sys.modules[node.module], alias.name)
    assert sorted(seen) == PUBLIC


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text())["project"]
    assert runglass.__version__ == project["version"]
