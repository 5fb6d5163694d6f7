"""What differs between two values, where, and how that is shown."""

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.diff.json_diff import (
    BRIEF_CHARS,
    JsonChange,
    JsonDiff,
    Part,
    brief,
    compare,
    excerpts,
)
from runglass.flows.diagnostics import PATH_CHARS, path_text

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from([0.5, 1.0, 10**40])
    | st.text("ab", max_size=2)
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc.", max_size=2), inner, max_size=4)
    ),
    max_leaves=12,
)


def whole(a: Any, b: Any) -> JsonDiff:
    return compare(a, b, most_visits=10**6, most_changes=10**6)


def patched(value: Any, changes: list[JsonChange]) -> Any:
    """The value with the changes made in it."""
    root = {"": copy.deepcopy(value)}
    # Items behind a removed one move up, so the last of a list goes first.
    removed = [change for change in changes if change.kind == "removed"]
    others = [change for change in changes if change.kind != "removed"]
    for change in [*others, *reversed(removed)]:
        parts: tuple[Part, ...] = ("", *change.parts)
        at: Any = root
        for part in parts[:-1]:
            at = at[part]
        last: Any = parts[-1]
        if change.kind == "removed":
            assert identical(at[last], change.a)
            del at[last]
        elif change.kind == "added" and isinstance(at, list):
            at.insert(last, change.b)
        else:
            at[last] = change.b
    return root[""]


def identical(a: Any, b: Any) -> bool:
    """Whether both are the same JSON; `True == 1` in Python."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(identical(a[name], b[name]) for name in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(identical, a, b))
    return isinstance(a, bool) is isinstance(b, bool) and a == b


@given(VALUES, VALUES)
def test_the_changes_make_the_second_value_of_the_first(a: Any, b: Any) -> None:
    """So nothing that differs is left out."""
    diff = whole(a, b)
    assert not diff.cut
    assert identical(patched(a, diff.changes), b)


@given(VALUES, VALUES, st.integers(0, 40))
def test_the_other_way_round_added_is_removed(a: Any, b: Any, visits: int) -> None:
    """Also where the work is cut."""
    turned = {"added": "removed", "removed": "added", "changed": "changed"}
    one = compare(a, b, most_visits=visits, most_changes=3)
    other = compare(b, a, most_visits=visits, most_changes=3)
    assert [(change.parts, change.kind, change.a, change.b) for change in one.changes] == [
        (change.parts, turned[change.kind], change.b, change.a) for change in other.changes
    ]
    assert (one.cut, one.visits) == (other.cut, other.visits)


@given(VALUES, VALUES, st.integers(0, 40))
def test_no_more_is_looked_at_than_is_allowed_and_what_is_cut_is_a_beginning(
    a: Any, b: Any, visits: int
) -> None:
    cut = compare(a, b, most_visits=visits, most_changes=10**6)
    assert cut.visits <= visits
    all_of_it = whole(a, b)
    assert cut.changes == all_of_it.changes[: len(cut.changes)]
    assert cut.cut is (all_of_it.visits > visits)


@pytest.mark.parametrize(
    ("a", "b", "changes"),
    [
        ([1, 2, 3, 4], [0, 1, 2, 3, 4], [((0,), "added", None, 0)]),
        ([1, 2, 3], [1, 5, 3], [((1,), "changed", 2, 5)]),
        (
            [{"t": "gut"}, {"t": "x"}],
            [{"t": "x"}, {"t": "y"}],
            [((0, "t"), "changed", "gut", "x"), ((1, "t"), "changed", "x", "y")],
        ),
        ({"a": 1}, {"a": True}, [(("a",), "changed", 1, True)]),
        ({"a": 1, "b": None}, {"a": 1.0}, [(("b",), "removed", None, None)]),
    ],
)
def test_a_change_is_told_where_people_look_for_it(a: Any, b: Any, changes: list[Any]) -> None:
    assert whole(a, b).changes == changes


def test_values_may_be_nested_more_deeply_than_python_recurses() -> None:
    deep: list[Any] = [[], []]
    for value in deep:
        for _ in range(20_000):
            value[:] = [value.copy()]
    deep[1].append(1)
    assert [(change.parts, change.kind) for change in whole(*deep).changes] == [((1,), "added")]


def test_what_hides_the_same_difference_in_every_layer_is_cut_and_not_compared_again_and_again() -> None:
    a: Any = "a"
    b: Any = "b"
    for _ in range(1000):
        a, b = [list(range(100)), a], [list(range(100)), b]
    diff = compare(a, b, most_visits=100_000, most_changes=10)
    assert diff.cut
    assert diff.visits <= 100_000


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ((), ""),
        (("a", "b", 2), "a.b[2]"),
        ((0, "id"), "[0].id"),
        (("two words", "ü"), '["two words"]["ü"]'),
        (("x" * 200,), f'["{"x" * 100}…"]'),
        (('"]',), '["\\"]"]'),
        (("half \ud800",), '["half �"]'),
        (("zero\u200bwidth\x9b",), r'["zero\u200bwidth\x9b"]'),
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
