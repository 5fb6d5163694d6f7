"""The libraries of the viewer are those that the table names, byte for byte."""

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
