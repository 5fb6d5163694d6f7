"""The libraries of the viewer are those that the table names, byte for byte."""

from pathlib import Path

import pytest

from tools.vendor import FOLDER, PACKAGES, TEST_FOLDER, TEST_PACKAGES, problems, rewritten


def test_the_vendored_files_have_their_hashes() -> None:
    assert list(problems()) == []
    assert list(problems(TEST_FOLDER, TEST_PACKAGES)) == []


def test_each_package_comes_with_its_licence() -> None:
    for package in PACKAGES:
        (licence,) = (name for path, (name, _) in package.files.items() if path == "LICENSE")
        assert "Permission is hereby granted" in (text := (FOLDER / licence).read_text("utf-8")) or (
            "Apache License" in text
        )


def test_a_changed_a_missing_and_a_further_file_are_told(tmp_path: Path) -> None:
    for file in FOLDER.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "preact.js").write_text("changed")
    (tmp_path / "htm.js").unlink()
    (tmp_path / "more.js").write_text("")
    told = list(problems(tmp_path))
    assert len(told) == 3
    assert all(any(name in line for line in told) for name in ("preact.js", "htm.js", "more.js"))


def test_no_bare_import_is_left_and_an_unknown_one_is_refused() -> None:
    source = b'import{h}from"preact";export*from"@preact/signals-core";\n//# sourceMappingURL=x.map\n'
    assert rewritten(source) == b'import{h}from"./preact.js";export*from"./signals-core.js";\n'
    with pytest.raises(KeyError, match="left-pad"):
        rewritten(b'import p from"left-pad"')
