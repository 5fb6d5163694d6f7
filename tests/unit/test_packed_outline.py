"""Packed outlines say what those say that they were packed of."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.outlines.builder import Node
from runglass.outlines.kept_outline import pack, unpack
from runglass.outlines.outline import SLICE_ROWS, Outline
from tests.run_logs import JsonObject, run_logs
from tests.unit.test_outline import attempt, attempts_of, outline_of


def parts_of(outline: Outline) -> tuple[bytes, list[bytes]]:
    *parts, head = pack(outline, nodes="nodes")
    return head, parts


def packed(head: bytes, parts: Sequence[bytes]) -> Outline:
    found = unpack(head, parts, nodes="nodes")
    assert found is not None
    return found


@given(run_logs(), st.integers(0, 20), st.integers(0, 20))
def test_each_page_is_as_it_was(log: list[JsonObject], first: int, count: int) -> None:
    outline = outline_of(attempts_of(log)[1])
    found = packed(*parts_of(outline))
    assert (found.seq, found.row_count) == (outline.seq, outline.row_count)
    assert found.latest_ms == outline.latest_ms
    assert b"".join(found.json_parts(first, count)) == b"".join(outline.json_parts(first, count))


def test_pages_may_begin_and_end_in_any_part() -> None:
    count = 2 * SLICE_ROWS
    nodes = [Node("each", "each", "loop", -1), Node("step", "step", "step", 0)]
    costs = (None, "0.000000001", "12.5")
    outline = outline_of(
        [attempt(at, "step", str(at - 1), tokens=at, cost=costs[at % 3]) for at in range(1, count + 1)], nodes
    )
    head, parts = parts_of(outline)
    assert len(parts) == 5
    found = packed(head, parts)
    assert found.size_bytes < outline.size_bytes / 5
    for first, rows in ((0, 10**9), (SLICE_ROWS - 1, 2), (SLICE_ROWS, SLICE_ROWS), (100, 2 * SLICE_ROWS)):
        assert b"".join(found.json_parts(first, rows)) == b"".join(outline.json_parts(first, rows))
    for column in ("cost", "depth"):
        assert found.values(column, 2 * count, 100) == outline.values(column, 2 * count, 100)
    with pytest.raises(ValueError, match="has 4 parts"):
        packed(head, parts[1:])
