"""How large a file of the package may be: a reader takes in one concept at a time."""

import ast
from pathlib import Path

import runglass

MOST_LINES = 300
REASON = f"More than {MOST_LINES} lines: "
"""How a sentence in a module's docstring begins that says why the file is one."""


def test_a_long_file_says_in_its_docstring_why_it_is_one() -> None:
    """A file that is one table may be long; any other is split by concept."""
    sources = sorted(Path(runglass.__file__).parent.rglob("*.py"))
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
