"""Text of callers in a line of a log."""

import pytest

from runglass.support.safe_text import printable


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("/flow-runs/ä 你好", "/flow-runs/ä 你好"),
        ("a\nb\r\x1b[2J\x00", r"a\nb\r\x1b[2J\x00"),
        ("a\x85\u2028\u202e\ud800", r"a\x85\u2028\u202e\ud800"),
        ("a" * 600, "a" * 500 + "…"),
    ],
)
def test_invisible_characters_are_escaped_and_long_texts_cut(text: str, line: str) -> None:
    assert printable(text) == line
