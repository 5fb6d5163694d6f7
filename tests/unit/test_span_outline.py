"""Outlines of recorded runs: of spans in any order, held to the rules of docs/spec/recording.md."""

import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import count
from types import FrameType
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.log.span_state import SpanState
from runglass.outlines.builder import AttemptRow
from runglass.outlines.outline import SLICE_ROWS, Outline, SpanMarks
from runglass.outlines.span_builder import LEVELS, SpanOutlineBuilder
from runglass.support.clock import iso_ms
from tests.outlines import BEGAN_MS, page_of, rows_of
from tests.recorded_spans import Recording
from tests.records import there
from tests.unit.test_span_tree import arrivals as received


class Span(NamedTuple):
    """A span, with times in milliseconds since `BEGAN_MS`."""

    id: int
    parent: int | None = None
    start: int | None = 0
    end: int | None = 10
    name: str | None = "work"
    kind: str = "chain"
    status: str = "completed"
    tokens: int | None = None
    cost: str | None = None
    finish: str | None = None
    model: str | None = None
    notes: tuple[str, ...] = ()


def stored(spans: Sequence[Span]) -> Iterator[AttemptRow]:
    """Spans as the store has them, in this order of arrival."""
    numbers: dict[str, Iterator[int]] = {}
    for position, span in enumerate(spans, 1):
        step_id = "not_received" if span.name is None else span.name.replace(" ", "_")
        number = next(numbers.setdefault(step_id, count()))
        data = {
            "stepId": step_id,
            "loopPath": [number],
            "spanId": f"{span.id:016x}",
            "parentSpanId": None if span.parent is None else f"{span.parent:016x}",
            "name": span.name,
            "kind": span.kind,
            "startTimeUnixNano": None if span.start is None else str((BEGAN_MS + span.start) * 1_000_000),
            "completedAt": None if span.end is None else iso_ms(BEGAN_MS + span.end),
            "tokens": None
            if span.tokens is None
            else {"prompt": span.tokens, "completion": 0, "total": span.tokens},
            "costUsd": span.cost,
            "finishReason": span.finish,
            "modelUsed": span.model,
            "notes": span.notes,
        }
        yield position, step_id, str(number), 1, span.status, msgspec.json.encode(data)


def outline_of(spans: Sequence[Span], *, entry: int | None = None, is_partial: bool = False) -> Outline:
    builder = SpanOutlineBuilder(
        started_at=None, seq=7, entry=None if entry is None else f"{entry:016x}", is_partial=is_partial
    )
    builder.add(stored(spans))
    *_, outline = builder.finish()
    return there(outline)


def marks_of(outline: Outline) -> SpanMarks:
    return there(outline.recorded)


ids = st.integers(1, 12)
spans = st.builds(
    Span,
    id=ids,
    parent=st.none() | st.integers(1, 15),
    start=st.none() | st.integers(0, 5),
    end=st.none() | st.integers(0, 9),
    kind=st.sampled_from(("llm", "other")),
    status=st.sampled_from(("completed", "failed", "running")),
    tokens=st.none() | st.integers(0, 9),
    cost=st.none() | st.sampled_from(("0.1", "0.02", "3")),
    finish=st.sampled_from((None, "stop", "length")),
    model=st.sampled_from((None, "m")),
    notes=st.sampled_from(((), ("n",))),
)


def named(found: Sequence[Span]) -> list[Span]:
    return [span._replace(name=f"s{span.id}") for span in found]


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[list[Span], list[Span]]:
    found = named(draw(st.lists(spans, unique_by=lambda span: span.id, max_size=12)))
    return found, draw(st.permutations(found))


@given(arrivals())
def test_the_order_of_arrival_changes_nothing_but_positions(both: tuple[list[Span], list[Span]]) -> None:
    one, other = map(outline_of, both)
    for rows in (mine := rows_of(one), others := rows_of(other)):
        for row in rows:
            del row["position"]
    assert mine == others
    marks, other_marks = marks_of(one), marks_of(other)
    for name in ("cycles", "context", "retry_of", "unattributed"):
        assert getattr(marks, name) == getattr(other_marks, name)


@given(arrivals())
def test_each_row_is_below_its_parent_and_sums_count_what_no_row_below_tells(
    both: tuple[list[Span], list[Span]],
) -> None:
    outline = outline_of(both[1])
    rows = rows_of(outline)
    span_of = {f"s{span.id}": span for span in both[0]}
    cycles = set(marks_of(outline).cycles)
    received = [row for row in rows if row["name"] in span_of]
    assert sorted(row["name"] for row in received) == sorted(span_of)
    for number, row in enumerate(rows):
        above = None if row["parent"] == -1 else rows[row["parent"]]
        span = span_of.get(row["name"])
        about = row["attempt"], row["attempts"], row["index"]
        assert about == ((0, 0, -1) if span is None else (1, 1, 0))
        if span is None:
            assert row["kind"] == "placeholder"
            assert row["parent"] == -1
        elif above is None:
            assert span.parent is None or number in cycles
        elif above["name"] in span_of:
            assert above["name"] == f"s{span.parent}"
        else:
            assert f"s{span.parent}" not in span_of
    children: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        assert row["parent"] < number
        children.setdefault(row["parent"], []).append(number)

    def usage(number: int) -> tuple[bool, int, Decimal]:
        """Whether anything in or below the row tells usage, and what of it counts."""
        inner = [usage(child) for child in children.get(number, ())]
        if any(is_told for is_told, _, _ in inner):
            return True, sum(tokens for _, tokens, _ in inner), sum((cost for *_, cost in inner), Decimal())
        span = span_of.get(rows[number]["name"])
        is_told = span is not None and (span.tokens is not None or span.cost is not None)
        return is_told, (span and span.tokens) or 0, Decimal((span and span.cost) or 0)

    beyond = {row: (tokens, Decimal(cost or 0)) for row, tokens, cost in marks_of(outline).unattributed}
    for number, row in enumerate(rows):
        _, tokens, cost = usage(number)
        assert (row["tokens"], Decimal(row["cost"] or 0)) == (tokens, cost)
        span = span_of.get(row["name"])
        if span is not None:
            more = max((span.tokens or 0) - tokens, 0), max(Decimal(span.cost or 0) - cost, Decimal())
            assert beyond.get(number, (0, 0)) == more


@given(received())
def test_the_rows_at_the_top_add_up_to_the_totals_of_the_run(states: list[SpanState]) -> None:
    run = Recording(states)
    outline, totals = run.outline(), there(run.summary.totals)
    top = [row for row in rows_of(outline) if row["depth"] == 0]
    assert sum(row["tokens"] for row in top) == (totals.tokens.total if totals.tokens else 0)
    assert sum(Decimal(row["cost"] or 0) for row in top) == Decimal(totals.cost_usd or 0)
    notes = there(run.summary.recording).notes
    cut = sum(note.startswith("a cycle of spans is cut") for note in notes)
    assert len(marks_of(outline).cycles) == cut


def test_siblings_stand_in_the_order_of_their_start_then_their_id() -> None:
    found = named([Span(1, None, 7), Span(4, None, 5), Span(3, None, 5), Span(2, None, None, None)])
    assert [row["name"] for row in rows_of(outline_of(found))] == ["s3", "s4", "s1", "s2"]


def test_of_a_part_of_a_run_no_parent_is_told_to_be_missing() -> None:
    assert [row["kind"] for row in rows_of(outline_of([Span(1, 9)], is_partial=True))] == ["chain"]
    assert marks_of(outline_of([Span(1, 9)])).step_ids == ["work", ""]


def test_the_times_of_a_part_of_a_run_are_counted_from_the_start_of_the_run() -> None:
    builder = SpanOutlineBuilder(started_at=iso_ms(BEGAN_MS), seq=7, is_partial=True)
    builder.add(stored([Span(2, 1, 5, 8)]))
    *_, outline = builder.finish()
    assert [(row["start"], row["end"]) for row in rows_of(there(outline))] == [(5, 8)]


def test_the_context_of_the_entry_is_what_stands_above_it_and_is_no_work_of_a_model() -> None:
    found = named([Span(1, kind="other"), Span(2, 1, kind="agent"), Span(3, 2, kind="other"), Span(4, 3)])
    assert marks_of(outline_of(found, entry=4)).context == [0, 2]


def test_a_span_of_which_only_logs_have_come_is_a_placeholder_with_content() -> None:
    (row,) = rows_of(outline_of([Span(1, name=None, start=None, end=None, status="running")]))
    assert (row["kind"], row["name"], row["position"]) == ("placeholder", "not received", 1)


@pytest.mark.parametrize("parents", [{1: 1}, {3: 2, 2: 1, 1: 3}, {1: 4, 4: 1, 2: 4, 3: 2}])
def test_a_cycle_is_cut_above_its_lowest_id(parents: dict[int, int]) -> None:
    outline = outline_of(named([Span(span, parent) for span, parent in parents.items()]))
    first, *others = rows_of(outline)
    assert first["name"] == "s1"
    assert marks_of(outline).cycles == [0]
    assert all(row["parent"] >= 0 for row in others)


def test_what_is_deeper_than_a_thousand_levels_stands_at_the_last_one() -> None:
    depth = 100_000
    found = [Span(at, at - 1 or None, at, at, tokens=at) for at in range(depth, 0, -1)]
    outline = outline_of(found)
    columns = page_of(outline).columns
    assert columns.depth == [*range(LEVELS), *[LEVELS - 1] * (depth - LEVELS)]
    assert columns.parent == [*range(-1, LEVELS - 1), *[LEVELS - 2] * (depth - LEVELS)]
    assert columns.tokens[0] == depth


def test_a_long_cycle_is_cut() -> None:
    length = 50_000
    outline = outline_of([Span(at, at % length + 1, 0) for at in range(1, length + 1)])
    assert (outline.row_count, marks_of(outline).cycles) == (length, [0])


@pytest.mark.parametrize("parent", [None, 1])
def test_many_siblings_are_sorted_in_slices_after_each_of_which_others_have_their_turn(
    parent: int | None,
) -> None:
    most = 3 * SLICE_ROWS
    builder = SpanOutlineBuilder(started_at=iso_ms(BEGAN_MS), seq=7)
    found = [Span(at, parent, at * 7 % most) for at in range(2, most)]
    builder.add(stored([*found, Span(most, parent, status="failed")]))
    slices, lines = builder.finish(), [0]

    def count_lines(frame: FrameType, event: str, arg: object) -> Any:
        lines[-1] += 1
        return count_lines

    before = sys.gettrace()
    sys.settrace(count_lines)
    try:
        while (outline := next(slices)) is None:
            lines.append(0)
    finally:
        sys.settrace(before)
    starts = outline.values("start", 0, most)
    assert starts == sorted(starts)
    assert max(lines) < 40 * SLICE_ROWS, "a slice of rows is worked on in one go, and no more"


def retries(*siblings: Span) -> list[tuple[int, int]]:
    outline = outline_of([*siblings, Span(99, None, 0, 100, "top")])
    rows = rows_of(outline)
    return [(rows[row]["index"], rows[of]["index"]) for row, of in marks_of(outline).retry_of]


def test_what_began_after_its_like_had_failed_probably_repeats_it() -> None:
    failed = Span(1, 99, 0, 5, "call", status="failed")
    assert retries(failed, Span(2, 99, 5, 9, "call")) == [(1, 0)]
    assert retries(failed, Span(2, 99, 6, 9, "call", status="failed"), Span(3, 99, 9, 9, "call")) == [
        (1, 0),
        (2, 1),
    ]
    assert retries(failed, Span(2, 99, 5, 9, "call", model="another")) == [(1, 0)]
    assert retries(failed, Span(2, 99, 4, 9, "call")) == []
    assert retries(failed, Span(2, 99, 6, 9, "call", kind="tool")) == []
    assert retries(failed, Span(2, 99, 6, 9, "other")) == []
    assert retries(failed, Span(2, 1, 6, 9, "call")) == []
    assert retries(failed._replace(end=None), Span(2, 99, 6, 9, "call")) == []
    both = failed, Span(2, 99, 1, 3, "call", status="failed")
    assert retries(*both, Span(3, 99, 4, 9, "call")) == [(2, 1)]
    assert retries(*both, Span(3, 99, 6, 9, "call")) == [(2, 0)]


def test_what_was_repeated_is_told_as_such() -> None:
    found = [Span(1, None, 0, 5, status="failed"), Span(2, None, 6, 9)]
    assert [row["status"] for row in rows_of(outline_of(found))] == ["retried", "completed"]


def test_hostile_numbers_and_names_make_an_outline_all_the_same() -> None:
    most: dict[str, Any] = {"tokens": 2**60, "cost": "0.1", "model": "m" * 10_000}
    found = [Span(2**64 - at, 1, name="n" * 10_000 + str(at), **most) for at in range(1, 4)]
    outline = outline_of([*found, Span(1, None, -(10**12), 10**13)])
    page = page_of(outline)
    assert max(map(len, page.names)) == 200
    assert max(len(model or "") for model in marks_of(outline).models) == 200
    assert page.columns.cost[0] == "0.3"
