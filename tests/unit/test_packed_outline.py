"""Outlines that are kept packed, and the timeline of one."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.outlines.builder import Node
from runglass.outlines.kept_outline import pack, unpack
from runglass.outlines.outline import SLICE_ROWS, STATUSES, Outline, OutlinePage
from runglass.outlines.timeline import LANES, Timeline, timeline
from tests.run_logs import JsonObject, run_logs
from tests.unit.test_outline import attempt, attempts_of, outline_of, page_of


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


def timeline_of(outline: Outline, from_ms: int, to_ms: int, buckets: int) -> Timeline:
    *_, made = timeline(outline, from_ms=from_ms, to_ms=to_ms, buckets=buckets)
    assert made is not None
    return made


def words(lane: list[int]) -> list[str]:
    return ["-" if status < 0 else STATUSES[status] for status in lane]


def duration_of(page: OutlinePage, made: Timeline, row: int) -> int:
    end = page.columns.end[row]
    return (made.to if end == -1 else end) - page.columns.start[row]


def counted(page: OutlinePage, made: Timeline) -> list[tuple[list[int], list[int]]]:
    """Worst and longest of each lane, attempt by attempt and bucket by bucket."""
    columns = page.columns
    lanes: list[tuple[list[int], list[int]]] = []
    buckets = (made.to - made.from_) // made.bucket_ms
    for row in range(page.row_count):
        if columns.parent[row] == -1:
            lanes.append(([-1] * buckets, [-1] * buckets))
        if row in columns.parent or columns.start[row] == -1:
            continue
        worst, longest = lanes[-1]
        start = columns.start[row]
        end = start + duration_of(page, made, row)
        for bucket in range(buckets):
            begins = made.from_ + bucket * made.bucket_ms
            ends = begins + made.bucket_ms
            # One that took no time is in the bucket in which it was.
            if start < ends and (end > begins or begins <= start):
                worst[bucket] = max(worst[bucket], columns.status[row])
                if longest[bucket] == -1 or duration_of(page, made, row) > duration_of(
                    page, made, longest[bucket]
                ):
                    longest[bucket] = row
    return lanes


@given(run_logs(), st.integers(0, 5000), st.integers(1, 90_000_000), st.integers(1, 40))
def test_each_bucket_has_the_worst_and_the_longest_of_what_went_on_in_it(
    log: list[JsonObject], from_ms: int, width: int, buckets: int
) -> None:
    trace, attempts = attempts_of(log)
    outline = outline_of(attempts, started_at=trace.flow_run.started_at)
    for first, count in ((0, outline.latest_ms + 1), (from_ms, width), (from_ms, 7)):
        made = timeline_of(outline, first, first + count, buckets)
        assert made.from_ == first
        assert made.to - made.from_ >= count
        assert (made.to - made.from_) % made.bucket_ms == 0
        assert 1 <= (made.to - made.from_) // made.bucket_ms <= buckets
        found = [(lane.worst, lane.longest) for lane in made.lanes]
        assert found == counted(page_of(outline), made)


def test_the_latest_time_is_that_of_the_last_attempt_that_began_or_ended() -> None:
    assert outline_of([]).latest_ms == 0
    assert outline_of([attempt(1, "a", at=(1, 9)), attempt(2, "b", at=(2, 3))]).latest_ms == 9000
    going_on = attempt(2, "b", at=(8, None), status="running")
    assert outline_of([attempt(1, "a", at=(1, 3)), going_on]).latest_ms == 8000


@pytest.mark.parametrize("count", [LANES - 1, LANES, LANES + 1, 3 * LANES])
def test_rows_beyond_the_last_lane_share_it(count: int) -> None:
    nodes = [Node(f"s{number}", f"s{number}", "step", -1) for number in range(count)]
    attempts = [
        attempt(
            number + 1,
            f"s{number}",
            at=(number % 50, number % 50 + 1),
            status="failed" if number == 52 else "completed",
        )
        for number in range(count)
    ]
    lanes = timeline_of(outline_of(attempts, nodes), 0, 60_000, 60).lanes
    assert len(lanes) == min(count, LANES)
    assert [lane.row for lane in lanes] == list(range(len(lanes)))
    assert sum(lane.row_count for lane in lanes) == count
    assert [lane.name for lane in lanes[: LANES - 1]] == [node.name for node in nodes[: LANES - 1]]
    assert lanes[-1].name == (None if count > LANES else f"s{count - 1}")
    assert ("failed" in words(lanes[-1].worst)) == (count > 52)
