"""Values and places as people read them in a diff: short, whatever they are."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.diff.json_diff import BRIEF_CHARS, PATH_CHARS, Part, brief, excerpts, path_text


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ((), ""),
        (("a", "b", 2), "a.b[2]"),
        ((0, "id"), "[0].id"),
        (("two words", "ü"), '["two words"]["ü"]'),
        (("x" * 200,), f'["{"x" * 100}…"]'),
        (('"]',), '["\\"]"]'),
    ],
)
def test_a_place_reads_as_in_code(parts: tuple[Part, ...], text: str) -> None:
    assert path_text(parts) == text


def test_a_deep_place_is_told_by_its_beginning_and_its_end() -> None:
    text = path_text(["first", *["deep"] * 50_000, "last"])
    assert len(text) == PATH_CHARS + 1
    assert text.startswith("first.deep")


def test_excerpts_of_long_texts_begin_shortly_before_they_differ() -> None:
    same = "x" * 5000
    a, b, cut = excerpts(f"{same}old{same}", f"{same}new")
    assert cut
    assert a.startswith(f"…{'x' * 100}oldxx")
    assert a.endswith("…")
    assert b == f"…{'x' * 100}new"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (list(range(3000)), "[… 3,000 items]"),
        ({f"n{number}": number for number in range(60)}, "{… 60 names}"),
        ({"text": "x" * 5000}, "{… 1 names}"),
        (1 << 5000, "a number of 5,001 bits"),
    ],
)
def test_a_large_value_is_told_by_its_size(value: Any, text: str) -> None:
    assert excerpts(value, None) == (text, None, True)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_every_excerpt_is_short(value: Any) -> None:
    short, _, cut = excerpts(value, None)
    assert len(msgspec.json.encode(short)) < 20_000
    assert cut or short == value
    assert len(brief(value)) <= BRIEF_CHARS
