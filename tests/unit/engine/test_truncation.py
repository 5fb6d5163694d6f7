"""A cut object is a JSON object of the size that was asked for, and still shows what it was."""

import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.engine.capture.snapshots import cut
from tests.examples import examples


def cut_value(value: dict[str, Any], limit: int) -> dict[str, Any]:
    encoded = cut(value, limit)
    assert len(encoded) <= limit
    shown = msgspec.json.decode(encoded, strict=True)
    assert isinstance(shown, dict)
    # Decoding forgets a key that stands twice; encoding again would be shorter.
    assert len(msgspec.json.encode(shown)) == len(encoded)
    return shown


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text() | st.builds(lambda text, times: text * times, st.text(), st.integers(1, 2000))
values = st.recursive(
    leaves | texts | st.integers(10**300, 10**301),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(texts, inner, max_size=8),
    max_leaves=30,
)


@examples(20, of=100)
@given(st.dictionaries(texts, values, max_size=10), st.integers(256, 5000))
def test_any_object_is_cut_to_any_limit_and_each_time_alike(value: dict[str, Any], limit: int) -> None:
    cut_value(value, limit)
    assert cut(value, limit) == cut(value, limit)


def test_a_long_text_keeps_its_beginning_and_says_what_is_missing() -> None:
    shown = cut_value({"id": 7, "text": "abc" * 1000, "short": "x"}, 1000)
    assert (shown["id"], shown["short"]) == (7, "x")
    kept, _, mark = shown["text"].partition("…")
    assert kept + ("abc" * 1000)[len(kept) :] == "abc" * 1000
    assert mark == f" [+{3000 - len(kept)} chars]"
    assert len(kept) >= 250


def test_a_long_list_keeps_its_first_items_and_says_how_many_follow() -> None:
    shown = cut_value({"rows": [{"id": n} for n in range(1000)]}, 1000)
    *kept, mark = shown["rows"]
    assert kept == [{"id": n} for n in range(len(kept))]
    assert mark == f"… [+{1000 - len(kept)} items]"
    assert len(kept) > 20


def test_all_keys_are_kept_while_they_fit() -> None:
    value = {f"key {n}": {"text": "x" * 10_000, "rows": list(range(1000))} for n in range(30)}
    assert list(cut_value(value, 2000)) == list(value)
    assert set(cut_value(value, 2000).values()) == {"{… 2 keys}"}
    assert all(set(inner) == {"text", "rows"} for inner in cut_value(value, 8000).values())


def test_too_many_keys_are_counted() -> None:
    shown = cut_value({f"k{n}": n for n in range(1000)}, 500)
    *kept, last = shown.items()
    assert kept == [(f"k{n}", n) for n in range(len(kept))]
    assert last == ("…", f"[+{1000 - len(kept)} keys]")


def test_deep_nesting_is_replaced() -> None:
    value: Any = "x" * 10_000
    for _ in range(500):
        value = {"in": [value]}
    shown: Any = cut_value(value, 2000)
    levels = 0
    while not isinstance(shown, str):
        shown = shown["in"] if isinstance(shown, dict) else shown[0]
        levels += 1
    assert levels > 10
    assert shown in ("{… 1 keys}", "[… 1 items]")


def test_long_keys_that_start_alike_stay_apart_and_marks_take_no_key() -> None:
    value = {"k" * 5000 + "a": 1, "k" * 5000 + "b": 2, "k" * 5000 + "c": 3, "…": 4, "……": 5}
    shown = cut_value(value, 1000)
    assert list(shown.values()) == [1, 2, 3, 4, 5]
    shown = cut_value({"…": 0, **{f"k{n}": n for n in range(1000)}}, 300)
    assert shown["…"] == 0
    assert "keys]" in shown["……"]


def test_lists_of_lists_without_end_are_cut() -> None:
    """Written out, they would have 2 ** 40 ends."""
    made: list[Any] = [1]
    for _ in range(40):
        made = [made, made]
    cut_value({"a": made}, 262_144)


@pytest.mark.parametrize(
    "value",
    [{"rows": [[[1] * 100] * 100] * 100}, {f"{'x' * 900}{n}": n for n in range(20_000)}],
    ids=["many values", "long names"],
)
def test_no_more_is_copied_than_there_is_room_for(value: dict[str, Any]) -> None:
    tracemalloc.start()
    cut(value, 5000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1_000_000
