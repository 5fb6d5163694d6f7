"""Tests use Runglass as its callers do: none reaches for a private name, and none changes a constant."""

import re
from pathlib import Path

import runglass

SOURCE = Path(runglass.__file__).parent
TESTS = Path(__file__).parents[1]
ALLOWED = {
    "unit/test_dependencies.py": {"_add_usage", "_client", "_pool", "_transport"},  # private parts of httpx2
    "prove/child.py": {"_seconds_since"},  # a process whose steps all take no time, or all a long one
}
PRIVATE = r"_[a-zA-Z]\w*"
GIVES = re.compile(
    rf"(?:def |class )({PRIVATE})|(?:self\.|for |^ *|, )({PRIVATE})(?=: | \W?= | in |, )", re.MULTILINE
)
"""Where code names a function, a class, a variable or an attribute."""
TAKES = re.compile(rf"\.({PRIVATE})|['\"](?:[\w.]+\.)?({PRIVATE})['\"]")
"""Where it may be named by another file, as in `monkeypatch.setattr(module, "_name", …)`."""
IMPORTED = re.compile(rf"\bfrom runglass\S* import (?:\([^)]*|.*)\b({PRIVATE})")
OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}
"""Names that Python's documentation has for everybody."""

CONSTANT = r"[A-Z][A-Z0-9_]*"
DEFINED = re.compile(rf"^ *({CONSTANT}(?:, {CONSTANT})*)(?:: [^=\n]+)? = ", re.MULTILINE)
"""Where a module or a class defines constants."""
CHANGED = re.compile(
    rf"\.({CONSTANT})(?: \W?=|: .* =|, .* =) |\bdel .*\.({CONSTANT})\b"
    rf"|(?:setattr|delattr|patch|object)\((?:\s*\S+[\])],)?[^'\"]*['\"](?:[\w.]+\.)?({CONSTANT})['\"]"
    r"|['\"]([A-Z0-9]+_[A-Z0-9_]*)['\"]: "
)
"""Where one may be given another value: also a key of a dictionary, through which a loop may go."""


def names(pattern: re.Pattern[str], text: str) -> set[str]:
    return {found[found.lastindex or 0] for found in pattern.finditer(text)}


def texts(*folders: Path) -> dict[Path, str]:
    return {path: path.read_text("utf-8") for folder in folders for path in folder.rglob("*.py")}


def test_no_test_reaches_into_a_private_part_of_the_package() -> None:
    privates = {name for text in texts(SOURCE).values() for name in names(GIVES, text)} - OF_NAMED_TUPLES
    assert len(privates) > 100
    found = {
        path.relative_to(TESTS).as_posix(): uses
        for path, text in texts(TESTS).items()
        if path != Path(__file__)
        and (uses := names(TAKES, text) & privates - names(GIVES, text) | names(IMPORTED, text))
    }
    assert found == ALLOWED


def test_no_test_changes_a_constant() -> None:
    root = TESTS.parent
    ours = texts(TESTS, root / "bench", root / "tools")
    lines = {line for text in (texts(SOURCE) | ours).values() for line in names(DEFINED, text)}
    constants = {name for line in lines for name in line.split(", ")}
    assert len(constants) > 500
    found = {
        path.relative_to(root).as_posix(): uses
        for path, text in ours.items()
        if (uses := names(CHANGED, text) & constants)
    }
    assert not found, (
        f"{found}: let what reads the constant take an argument that has it as its default, and give it the"
        " value of the test; for a limit deep inside of a server there is `runtime.runtime:FixedLimits`"
    )
