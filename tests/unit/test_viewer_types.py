"""What checks the viewer's types: the libraries that are sent, from hashes alone, with no way around it."""

import json
import re
from pathlib import Path

from tools.vendor import FOLDER, PACKAGES

ROOT = Path(__file__).parents[2]
TYPES = ROOT / "tools" / "viewer_types"
LOCK = json.loads((TYPES / "package-lock.json").read_text("utf-8"))["packages"]

WAY_AROUND = re.compile(r"@ts-(?:ignore|nocheck|expect-error)|\bany(?:\[\])?(?=[}>|,;)])")
"""`Json` is the one name of what may be anything."""


def test_the_types_are_of_the_versions_that_are_vendored() -> None:
    installed = {path.removeprefix("node_modules/"): package.get("version") for path, package in LOCK.items()}
    assert {package.name: installed.get(package.name) for package in PACKAGES} == {
        package.name: package.version for package in PACKAGES
    }


def test_each_package_has_a_hash_and_no_address() -> None:
    further = {path: package for path, package in LOCK.items() if path}
    assert [path for path, package in further.items() if not package["integrity"].startswith("sha512-")] == []
    assert [path for path, package in further.items() if "resolved" in package] == []


def test_no_module_goes_around_the_check() -> None:
    modules = [file for file in FOLDER.parent.rglob("*.js") if file.parent != FOLDER]
    found = [
        f"{file.name}:{number}: {line.strip()}"
        for file in [*modules, *(ROOT / "tests" / "viewer").glob("*.mjs")]
        for number, line in enumerate(file.read_text("utf-8").splitlines(), start=1)
        if WAY_AROUND.search(line)
    ]
    assert found == []
