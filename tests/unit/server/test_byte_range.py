"""Which bytes a `Range` means, and what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.server.routes.payload import byte_range, entity_tag, names_tag

DATA = b"0123456789"
TAG = entity_tag(DATA)


@given(st.binary(min_size=1, max_size=50), st.data())
def test_a_range_within_the_content_is_those_bytes(data: bytes, draw: st.DataObject) -> None:
    first = draw.draw(st.integers(0, len(data) - 1))
    last = draw.draw(st.integers(first, len(data) - 1))
    found = byte_range(f"bytes={first}-{last}", None, size=len(data), tag=TAG)
    assert found is not None
    assert len(data[found.first : found.stop]) == last - first + 1
    assert found.content_range(len(data)) == f"bytes {first}-{last}/{len(data)}"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=3-", b"3456789"),
        ("bytes=-3", b"789"),
        ("bytes=-99", DATA),
        ("bytes=8-99999999", b"89"),
        ("Bytes= 0-0 ", b"0"),
        # What is no range, is more than one or is of another unit is as if it had not been sent.
        (None, None),
        ("", None),
        ("bytes=-", None),
        ("bytes=5-4", None),
        ("bytes=a-b", None),
        ("bytes=0-1,3-4", None),
        ("rows=0-1", None),
        ("bytes=0-" + "9" * 5000, None),
        ("bytes=٣-٤", None),
    ],
)
def test_the_forms_of_a_range(header: str | None, expected: bytes | None) -> None:
    found = byte_range(header, None, size=len(DATA), tag=TAG)
    assert (None if found is None else DATA[found.first : found.stop]) == expected


@pytest.mark.parametrize(
    ("header", "named"),
    [(None, False), ("", False), (TAG, True), (f'"a", W/{TAG}', True), ("*", True), ('"a"', False)],
)
def test_a_tag_is_named_by_itself_weakly_or_by_a_star(header: str | None, named: bool) -> None:
    assert names_tag(header, TAG) is named
