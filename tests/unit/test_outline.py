"""Outlines of generated runs and flows, also packed: the laws of a tree, totals of the run, the timeline."""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.flows.flow import Flow, every_step, leaves
from runglass.log.money import format_usd
from runglass.log.trace import RunTotals, Trace
from runglass.outlines.builder import AttemptRow, Node, OutlineBuilder
from runglass.outlines.columns import MAX_ROWS
from runglass.outlines.kept_outline import pack, unpack
from runglass.outlines.outline import SLICE_ROWS, STATUSES, Outline, OutlinePage
from runglass.outlines.timeline import LANES, Timeline, timeline
from runglass.server.services.outlines import flow_nodes
from tests.flows import flow_trees
from tests.laws.log import Log
from tests.outlines import Attempt, lines_of, outline_of, page_of, rows_of, stored
from tests.records import there
from tests.run_logs import JsonObject, run_logs

NODES = [
    Node("a", "a", "step", -1),
    Node("b", "b", "step", -1),
    Node("ask", "ask", "step", -1),
    Node("outer", "outer", "loop", -1),
    Node("in_loop", "in_loop", "step", 3),
    Node("inner", "inner", "loop", 3),
    Node("in_inner_loop", "in_inner_loop", "step", 5),
    Node("sides", "sides", "parallel", -1),
    Node(None, "left side", "branch", 7),
    Node("left", "left", "step", 8),
    Node(None, "right side", "branch", 7),
    Node("right", "right", "step", 10),
]
"""The tree of the steps in generated logs."""


def made_of(*attempts: Attempt, nodes: Sequence[Node] = NODES, **about: Any) -> Outline:
    return outline_of(nodes, stored(attempts), **about)


def lines(outline: Outline, *columns: str) -> list[str]:
    return lines_of(rows_of(outline), "status", *columns)


def attempts_of(events: list[JsonObject]) -> tuple[Trace, list[AttemptRow]]:
    """The trace of a log, and every attempt as the store has it at the end."""
    log = Log("run")
    for seq, event in enumerate(events, 1):
        # A generated log may run any step again, at any time.
        list(log.add(seq, msgspec.json.encode(event)))
    return log.fold.trace(), [*log.attempt_rows]


@given(run_logs(), st.integers(1, 5), st.integers(0, 20), st.integers(0, 20))
def test_rows_are_a_tree_in_pre_order_that_adds_up_to_the_run_also_packed(
    log: list[JsonObject], piece: int, first: int, count: int
) -> None:
    trace, attempts = attempts_of(log)
    builder = OutlineBuilder(NODES, started_at=trace.flow_run.started_at, seq=7)
    for begin in range(0, len(attempts), piece):
        builder.add(attempts[begin : begin + piece])
    *_, found = builder.finish()
    outline = there(found)
    page = page_of(outline)
    assert page == page_of(outline_of(NODES, attempts, started_at=trace.flow_run.started_at))
    again = there(unpack(*parts_of(outline), nodes="nodes"))
    assert (again.seq, again.row_count, again.latest_ms) == (
        outline.seq,
        outline.row_count,
        outline.latest_ms,
    )
    assert b"".join(again.json_parts(first, count)) == b"".join(outline.json_parts(first, count))
    assert outline.latest_ms == max((0, *page.columns.start, *page.columns.end))

    # A row's parent is the last one before it that is less deep, and siblings are in the flow's order.
    rows, columns, totals = rows_of(outline), page.columns, trace.flow_run.totals or RunTotals()
    above: list[int] = []
    for number, row in enumerate(rows):
        del above[row["depth"] :]
        assert len(above) == row["depth"]
        assert row["parent"] == (above[-1] if above else -1)
        above.append(number)
    order = [node.name for node in NODES]
    for parent in range(-1, len(rows)):
        numbers = [number for number, row in enumerate(rows) if row["parent"] == parent]
        children = [rows[number] for number in numbers]
        by_kind = [(row["index"], row["attempt"] if row["kind"] == "attempt" else 0) for row in children]
        places = [(order.index(row["name"]), *more) for row, more in zip(children, by_kind, strict=True)]
        assert places == sorted(set(places))
        # It has the worst status, the whole time and all usage of what is inside.
        told: Any = rows[parent] if parent >= 0 else {}
        # Fractions, as decimals are rounded to 28 digits.
        costs = [Fraction(row["cost"]) for row in children if row["cost"] is not None]
        used = sum(row["tokens"] for row in children), sum(costs)
        if parent == -1:
            assert used == (totals.tokens.total if totals.tokens else 0, Fraction(totals.cost_usd or 0))
            assert bool(costs) == (totals.cost_usd is not None)
        elif children:
            assert used == (told["tokens"], Fraction(told["cost"] or 0))
            assert told["cost"] in (None, format_usd(Decimal(told["cost"] or 0)))
            assert columns.status[parent] == max(columns.status[child] for child in numbers)
            begun = [row for row in children if row["start"] >= 0]
            assert told["start"] == min((row["start"] for row in begun), default=-1)
            ends = [row["end"] for row in begun]
            assert told["end"] == (-1 if -1 in ends else max(ends, default=-1))

    # What holds nothing is an attempt, of which the store finds the data by its position.
    tried = [row for number, row in enumerate(rows) if number not in columns.parent]
    assert sorted((row["position"], row["name"], row["attempt"]) for row in tried) == [
        (position, step_id, number) for position, step_id, _, number, _, _ in attempts
    ]
    for row in rows:
        assert (row["position"] > 0) == (row["attempt"] > 0)
        if row["kind"] == "attempt":
            assert row["position"] == rows[row["parent"]]["position"]
    ended = [row["status"] for row in tried]
    assert ended.count("completed") == totals.completed
    assert ended.count("skipped") == totals.skipped
    # The trace does not tell of the newest attempt whether one more is to follow.
    assert sum(map(ended.count, ("failed", "cancelled", "retried"))) == totals.failed + totals.retried


@given(flow_trees())
def test_the_nodes_of_a_flow_are_its_steps_and_branches_in_document_order(flow: Flow) -> None:
    nodes = flow_nodes(flow)
    assert [node.id for node in nodes if node.id is not None] == [step.id for step in every_step(flow.steps)]
    assert [node.id for node in nodes if node.kind == "step"] == [step.id for step in leaves(flow.steps)]
    assert all(node.parent < number for number, node in enumerate(nodes))
    for node in nodes:
        holder = None if node.parent == -1 else nodes[node.parent].kind
        in_branches = holder in ("condition", "parallel")
        assert in_branches == (node.kind == "branch")


def test_an_attempt_that_was_cut_off_is_cancelled_and_no_failure() -> None:
    cut_off, error = {"code": "CANCELLED", "message": "m"}, {"code": "CODE_ERROR", "message": "CANCELLED"}
    attempts = [
        Attempt("a", status="failed", error=error | {"line": msgspec.Raw(b"1e999"), "code": "CANCELLED?"}),
        Attempt("in_loop", (0,)),
        Attempt("in_loop", (1,), 1, "failed", error=error),
        Attempt("in_loop", (1,), 2, "failed", error=cut_off),
        Attempt("left", status="failed", error=cut_off),
        Attempt("right", status="failed", error="CANCELLED"),
        Attempt("ask", (), 1, "failed", error=cut_off | {"line": msgspec.Raw(b"1e999")}),
        Attempt("ask", (), 2),
    ]
    assert lines(made_of(*attempts)) == [
        "a#1 failed",
        "ask#2 retried",
        "  ask#1 retried",
        "  ask#2 completed",
        "outer cancelled",
        "  outer[0] completed",
        "    in_loop#1 completed",
        "  outer[1] cancelled",
        "    in_loop#2 cancelled",
        "      in_loop#1 retried",
        "      in_loop#2 cancelled",
        "sides failed",
        "  left side cancelled",
        "    left#1 cancelled",
        "  right side failed",
        "    right#1 failed",
    ]


def test_attempts_whose_model_was_stopped_are_told_by_their_rows() -> None:
    outline = made_of(
        Attempt("in_loop", (1,), finish="length"),
        Attempt("in_loop", (0,), finish="stop"),
        Attempt("ask", (), 1, "failed", finish="length"),
        Attempt("ask", (), 2, finish="length"),
        Attempt("ask", (), 3, finish="stop"),
    )
    assert page_of(outline).cut == [1, 2, 8]
    assert [page_of(outline, first, 3).cut for first in (0, 3, 6, 9)] == [[1, 2], [], [8], []]


def test_a_container_that_fails_itself_is_as_bad_as_that() -> None:
    """It is recorded like a step, before or after what is inside of it."""
    nodes = [Node("each", "each", "loop", -1), Node("step", "step", "step", 0)]
    broken = Attempt("each", (), 1, "failed", tokens=1)
    again = Attempt("each", (), 2, "failed", tokens=2)
    within = Attempt("step", (0,), tokens=4)
    assert lines(made_of(within, broken, nodes=nodes), "attempts", "tokens") == [
        "each#1 failed 1 5",
        "  each[0] completed 0 4",
        "    step#1 completed 1 4",
    ]
    assert lines(made_of(within, broken, again, nodes=nodes), "attempts", "tokens") == [
        "each#2 failed 2 7",
        "  each#1 retried 0 1",
        "  each#2 failed 0 2",
        "  each[0] completed 0 4",
        "    step#1 completed 1 4",
    ]


def test_rows_have_their_names_where_locations_share_one() -> None:
    nodes = [
        *(Node("one", "one", "condition", -1), Node(None, "then", "branch", 0), Node("a", "a", "step", 1)),
        *(Node("two", "two", "condition", -1), Node(None, "then", "branch", 3), Node("b", "b", "step", 4)),
    ]
    rows = rows_of(made_of(Attempt("a"), Attempt("b", (0,)), Attempt("b"), nodes=nodes))
    assert [row["name"] for row in rows] == ["one", "then", "a", "two", "then", "b", "b", "b", "b"]


def test_in_a_paused_run_what_runs_is_waiting() -> None:
    attempts = [Attempt("a"), Attempt("ask", status="running", end=None)]
    assert lines(made_of(*attempts, is_paused=True)) == ["a#1 completed", "ask#1 waiting"]
    assert lines(made_of(*attempts)) == ["a#1 completed", "ask#1 running"]


def test_a_clock_that_was_set_back_gives_no_negative_times() -> None:
    attempts = [Attempt("a", start=9000, end=3000), Attempt("b", start=1000, end=2000)]
    outline = made_of(*attempts, started_at="2026-01-01T00:00:05.000Z")
    assert lines(outline, "start", "end") == ["a#1 completed 4000 4000", "b#1 completed 0 1000"]


@pytest.mark.parametrize(
    ("row", "error"),
    [
        *(
            ((1, "in_loop", path, 1, "completed", b"{}"), ValueError)
            for path in ("x", "-1", "01", str(MAX_ROWS))
        ),
        ((1, "a", "", 1, "glowing", b"{}"), LookupError),
    ],
)
def test_an_attempt_that_is_none_is_refused(row: AttemptRow, error: type[Exception]) -> None:
    with pytest.raises(error):
        outline_of(NODES, [row])


def parts_of(outline: Outline) -> tuple[bytes, list[bytes]]:
    *parts, head = pack(outline, nodes="nodes")
    return head, parts


def test_pages_may_begin_and_end_in_any_part() -> None:
    count = 2 * SLICE_ROWS
    nodes = [Node("each", "each", "loop", -1), Node("step", "step", "step", 0)]
    costs = (None, "0.000000001", "12.5")
    attempts = [Attempt("step", (at,), tokens=at, cost=costs[at % 3]) for at in range(count)]
    outline = made_of(*attempts, nodes=nodes)
    head, parts = parts_of(outline)
    assert len(parts) == 5
    found = there(unpack(head, parts, nodes="nodes"))
    assert found.size_bytes < outline.size_bytes / 5
    for first, rows in ((0, 10**9), (SLICE_ROWS - 1, 2), (SLICE_ROWS, SLICE_ROWS), (100, 2 * SLICE_ROWS)):
        assert b"".join(found.json_parts(first, rows)) == b"".join(outline.json_parts(first, rows))
    for column in ("cost", "depth"):
        assert found.values(column, 2 * count, 100) == outline.values(column, 2 * count, 100)
    with pytest.raises(ValueError, match="has 4 parts"):
        unpack(head, parts[1:], nodes="nodes")


def timeline_of(outline: Outline, from_ms: int, to_ms: int, buckets: int) -> Timeline:
    *_, made = timeline(outline, from_ms=from_ms, to_ms=to_ms, buckets=buckets)
    return there(made)


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
    outline = outline_of(NODES, attempts, started_at=trace.flow_run.started_at)
    for first, count in ((0, outline.latest_ms + 1), (from_ms, width), (from_ms, 7)):
        made = timeline_of(outline, first, first + count, buckets)
        assert made.from_ == first
        assert made.to - made.from_ >= count
        assert (made.to - made.from_) % made.bucket_ms == 0
        assert 1 <= (made.to - made.from_) // made.bucket_ms <= buckets
        found = [(lane.worst, lane.longest) for lane in made.lanes]
        assert found == counted(page_of(outline), made)


@pytest.mark.parametrize("count", [LANES - 1, LANES, LANES + 1, 3 * LANES])
def test_rows_beyond_the_last_lane_share_it(count: int) -> None:
    nodes = [Node(f"s{number}", f"s{number}", "step", -1) for number in range(count)]
    attempts = [
        Attempt(f"s{number}", (), 1, "failed" if number == 52 else "completed", number % 50, 50)
        for number in range(count)
    ]
    lanes = timeline_of(made_of(*attempts, nodes=nodes), 0, 60, 60).lanes
    assert len(lanes) == min(count, LANES)
    assert [lane.row for lane in lanes] == list(range(len(lanes)))
    assert sum(lane.row_count for lane in lanes) == count
    assert [lane.name for lane in lanes[: LANES - 1]] == [node.name for node in nodes[: LANES - 1]]
    assert lanes[-1].name == (None if count > LANES else f"s{count - 1}")
    assert (STATUSES.index("failed") in lanes[-1].worst) == (count > 52)
