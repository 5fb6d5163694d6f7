"""The public surface: its names, and that the blocking client is current."""

import ast
import sys
import tomllib
from pathlib import Path

import runglass
from tools import twins

ROOT = Path(runglass.__file__).parent
PUBLIC: list[str] = vars(runglass)["__all__"]


def test_the_list_is_sorted_and_complete_and_type_checkers_see_what_the_program_gets() -> None:
    seen = ["__version__"]
    for node in ast.walk(ast.parse((ROOT / "__init__.py").read_text())):
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
    project = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text())["project"]
    assert runglass.__version__ == project["version"]


def test_the_blocking_client_is_current() -> None:
    assert list(twins.differences()) == []


def test_a_source_that_changes_is_seen(tmp_path: Path) -> None:
    for source, target in twins.pairs():
        for file in (source, target):
            copy = tmp_path / file.relative_to(twins.CLIENT)
            copy.parent.mkdir(exist_ok=True)
            copy.write_text(file.read_text("utf-8"), "utf-8")
    runs = tmp_path / "aio" / "runs.py"
    runs.write_text(runs.read_text("utf-8").replace("requests.trace(", "requests.job("), "utf-8")
    (changed,) = (line for line in twins.differences(tmp_path) if line.startswith("+ "))
    assert "requests.job(" in changed
