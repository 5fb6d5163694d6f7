"""What is vendored: it is what it says, with its licences, and the viewer's types are of its versions."""

import json
import re
from pathlib import Path

from tools.vendor import FOLDER, PACKAGES, TEST_FOLDER, TEST_PACKAGES, problems


def test_the_vendored_files_have_their_hashes() -> None:
    assert list(problems()) == []
    assert list(problems(TEST_FOLDER, TEST_PACKAGES)) == []


def test_each_package_comes_with_its_licence() -> None:
    for package in PACKAGES:
        (licence,) = (name for path, (name, _) in package.files.items() if path == "LICENSE")
        assert "Permission is hereby granted" in (text := (FOLDER / licence).read_text("utf-8")) or (
            "Apache License" in text
        )


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
