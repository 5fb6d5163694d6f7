"""Which rows of a run's tree are shown: all of few; of many what matters, and a count of the rest."""

from hypothesis import given, settings
from hypothesis import strategies as st

from runglass.cli.terminal.outline_rows import OutlineRows, choose_rows, tree_lines
from runglass.cli.terminal.outline_view import Bar, TimeAxis
from runglass.outlines.builder import Node
from runglass.outlines.outline import NONE
from tests.outlines import Attempt
from tests.unit.cli.outlines import rows_of

GRID = [
    Node("rows", "rows", "loop", -1),
    Node("cells", "cells", "loop", 0),
    Node("look", "look", "step", 1),
    Node("count", "count", "step", 0),
    Node("end", "end", "step", -1),
]


def grid(outer: int, inner: int, *others: Attempt) -> OutlineRows:
    """A run of nested loops; `others` come in place of attempts of the same step and iteration."""
    special: dict[tuple[str, tuple[int, ...]], list[Attempt]] = {}
    for each in others:
        special.setdefault((each.step, each.path), []).append(each)
    attempts = []
    for row in range(outer):
        for cell in range(inner):
            attempts += special.get(("look", (row, cell)), [Attempt("look", (row, cell))])
        attempts += special.get(("count", (row,)), [Attempt("count", (row,))])
    return rows_of(GRID, [*attempts, *special.get(("end", ()), [Attempt("end")])])


def test_of_many_iterations_the_first_the_slowest_and_the_last_are_shown() -> None:
    rows = grid(40, 1, Attempt("look", (17, 0), end=900))
    shown = [line for line in tree_lines(rows, choose_rows(rows, most=30)) if line.depth == 1]
    assert [rows.index[line.row] for line in shown if line.folded is None] == [0, 17, 39]
    counted = [line.folded and (sum(line.folded.statuses.values()), line.folded.kind) for line in shown]
    assert counted == [None, (16, "iteration"), None, (21, "iteration"), None]


def test_all_attempts_of_a_step_stand_below_it() -> None:
    tries = [
        Attempt("look", (30, 4), number, status, number * 10, number * 10 + 5)
        for number, status in ((1, "failed"), (2, "failed"), (3, "completed"))
    ]
    rows = grid(40, 50, *tries)
    shown = choose_rows(rows, most=20)
    assert [rows.attempt[row] for row in sorted(shown) if rows.kind(row) == "attempt"] == [1, 2, 3]
    assert (
        list(rows.rows_with("retried"))
        == [row for row in sorted(shown) if rows.status(row) == "retried"][-2:]
    )


@settings(deadline=None, max_examples=50)
@given(
    outer=st.integers(0, 30),
    inner=st.integers(0, 30),
    most=st.integers(1, 120),
    bad=st.sets(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=5),
)
def test_no_row_is_lost_and_none_comes_twice(
    outer: int, inner: int, most: int, bad: set[tuple[int, int]]
) -> None:
    failed = [Attempt("look", path, status="failed", cost="0.1") for path in bad]
    rows = grid(outer, inner, *failed)
    shown = choose_rows(rows, most=most)
    lines = list(tree_lines(rows, shown))
    seen = [row for line in lines for row in (line.iteration, line.row) if row != NONE]
    assert seen == sorted(shown)
    # Whoever is not shown is inside of a row that is closed, or was counted in a gap.
    covered = len(shown)
    for line in lines:
        if line.folded is not None:
            hidden = [row for row in rows.children(line.folded.parent) if row not in shown]
            assert sum(line.folded.statuses.values()) <= len(hidden)
        elif line.is_closed:
            covered += rows.size[line.row] - 1
    gaps = {line.folded.parent for line in lines if line.folded is not None}
    covered += sum(rows.size[row] for parent in gaps for row in rows.children(parent) if row not in shown)
    assert covered == len(rows)
    in_loop = {row for row in shown if rows.status(row) == "failed" and rows.size[row] == 1}
    assert len(in_loop) == sum(path[0] < outer and path[1] < inner for path in bad)


@settings(deadline=None)
@given(
    begin=st.integers(0, 10**9),
    length=st.integers(1, 10**9),
    width=st.integers(1, 300),
    bars=st.lists(st.tuples(st.integers(-1, 2 * 10**9), st.integers(-1, 10**9)), max_size=4),
)
def test_no_bar_leaves_the_axis(begin: int, length: int, width: int, bars: list[tuple[int, int]]) -> None:
    axis = TimeAxis(begin, begin + length, width)
    made = [Bar(start, start if took < 0 else start + took, "completed") for start, took in bars]
    assert axis.drawn(*made).cell_len == width
    assert len(axis.header()) == width
