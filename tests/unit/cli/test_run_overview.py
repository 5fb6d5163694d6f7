"""A run on a terminal: why it is as it is, its tree at any width, which rows of many, and what stands out."""

import re
from collections.abc import Callable, Iterable, Sequence
from unittest.mock import Mock

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from runglass.cli.commands.show_run import MOST_FAILED, failed_attempts, failed_lines, largest_attempts
from runglass.cli.terminal.outline_rows import OutlineRows, StepAddress, choose_rows, tree_lines
from runglass.cli.terminal.outline_view import Bar, TimeAxis
from runglass.cli.terminal.output import clean
from runglass.cli.terminal.run_view import attempt_list, overview_lines
from runglass.log.trace import ModelCall, RunError, RunSummary, RunTotals, StepTrace
from runglass.outlines.builder import Node
from runglass.outlines.outline import NONE, Outline
from tests.outlines import Attempt, outline_of, pages_of, stored


def read_rows(outline: Outline, *, limit: int = 100_000) -> OutlineRows:
    """The rows as the command has them, from pages of so many."""
    rows = OutlineRows()
    for page in pages_of(outline, limit=limit):
        rows.add(page)
    rows.finish()
    return rows


def rows_of(nodes: Sequence[Node], attempts: Iterable[Attempt], *, is_paused: bool = False) -> OutlineRows:
    return read_rows(outline_of(nodes, stored(attempts), is_paused=is_paused))


NODES = [
    Node("each", "each", "loop", -1),
    Node("ask", "ask", "step", 0),
    Node("price it", "price it", "step", 0),
    Node("answer", "answer", "step", -1),
]
RETRIED = [
    Attempt("ask", (0,), cost="0.01", tokens=1200, end=700),
    Attempt("price it", (0,), start=700, end=705),
    Attempt("ask", (1,), cost="0.02", tokens=900, start=705, end=1000),
    Attempt("price it", (1,), 1, "failed", 1000, 1010),
    Attempt("price it", (1,), 2, "failed", 1200, 1207),
]
ROWS = rows_of(NODES, RETRIED)
FAILED = RunSummary(
    id="0198c0de-0000-7000-8000-0000000000aa",
    flow_id="f",
    status="failed",
    flow_slug="orders",
    version=2,
    started_at="2026-01-01T00:00:00.000Z",
    duration_ms=1210,
    error=RunError(code="CODE_ERROR", message="short", step_id="price it"),
    totals=RunTotals(completed=3, failed=1, retried=1),
)


def told(**about: object) -> Callable[[StepAddress], StepTrace]:
    """A server that tells this of every attempt."""

    def read(address: StepAddress) -> StepTrace:
        return StepTrace(step_id=address.step_id, attempt=address.attempt, **about)  # type: ignore[arg-type]

    return read


def shown(
    run: RunSummary, rows: OutlineRows, *, width: int | None = 100, most: int = 100, **about: object
) -> list[str]:
    lines = overview_lines(run, rows, told(**about), named="00aa", width=width, most=most)
    return [line.plain for line in lines]


def test_a_cancelled_run_says_by_whom_and_where_it_was_and_counts_no_failure() -> None:
    cut_off = Attempt("answer", (), 1, "failed", 1000, 1210, error={"code": "CANCELLED"})
    rows = rows_of(NODES, [Attempt("ask", (0,), end=700), cut_off])
    run = replace(
        FAILED,
        status="cancelled",
        error=RunError(code="CANCELLED", message="cancelled by the key nk_live_5f3a91c2"),
        totals=RunTotals(completed=1, failed=1, cancelled=1),
    )
    lines = shown(run, rows, error_context={"code": "CANCELLED", "message": "m"})
    assert lines[:3] == [
        "status     ⊘ cancelled in 1.21 s",
        "why        cancelled by the key nk_live_5f3a91c2; during answer",
        "           runglass runs step 00aa answer",
    ]
    assert "steps      1 completed, 1 cancelled" in lines
    assert lines[-1].startswith("⊘ answer")
    assert failed_attempts(rows) == []


def test_a_failed_run_says_first_where_and_why_and_how_to_look_closer() -> None:
    lines = shown(FAILED, ROWS, error_context={"code": "CODE_ERROR", "message": "the whole\nreason"})
    assert lines[:3] == [
        "status     ✗ failed in 1.21 s",
        "why        price it [1], attempt 2 of 2: CODE_ERROR: the whole reason",
        "           runglass runs step 00aa 'price it' --loop 1 --attempt 2",
    ]
    assert "steps      3 completed, 1 failed, 1 attempt failed and retried" in lines
    (each,) = (line for line in lines if line.startswith("✗ each  2 iterations"))
    assert each.split()[-4:] == ["1.21", "s", "2,100", "$0.03"]
    assert [line[:28].rstrip() for line in lines[-5:]] == [
        "    ✗ price it  2 attempts",
        "      ↻ attempt 1",
        "          CODE_ERROR: the wh",
        "      ✗ attempt 2",
        "          CODE_ERROR: the wh",
    ]


def test_a_run_that_waits_says_for_what() -> None:
    paused = RunSummary(id="r", flow_id="f", status="paused")
    rows = rows_of(NODES, [Attempt("answer", status="running", end=None)], is_paused=True)
    calls = [{"function": {"name": "weather"}}, {"function": {"name": "tide"}}]
    call = ModelCall(number=1, model="echo", response={"toolCalls": calls})
    lines = shown(paused, rows, model_calls=(call,))
    assert lines[1] == "why        answer waiting for the results of 2 tool calls: weather, tide"
    assert shown(paused, rows)[1] == "why        answer waiting for tool results"
    assert shown(paused, rows_of(NODES, []))[1] == "why        waiting for the next call of the step-through"


@settings(deadline=None)
@given(name=st.text(min_size=1, max_size=80), width=st.integers(30, 200))
def test_no_name_breaks_the_columns(name: str, width: int) -> None:
    rows = rows_of(
        [Node("a", name, "loop", -1), Node("b", name, "step", 0)],
        [Attempt("b", (at,), start=at, end=at + 1) for at in range(3)],
    )
    run = RunSummary(id="r", flow_id="f", status="completed", duration_ms=100)
    lines = list(overview_lines(run, rows, told(), named="r", width=width))
    tree = lines[[line.plain for line in lines].index("") + 1 :]
    assert len(tree) == 5
    assert all(line.cell_len <= width and clean(line.plain) == line.plain for line in tree)


def test_errors_that_are_shown_are_few_however_many_there_are() -> None:
    rows = rows_of(NODES, [Attempt("ask", (at,), status="failed") for at in range(500)])
    read = Mock(side_effect=told())
    list(overview_lines(FAILED, rows, read, named="r", width=None))
    assert 0 < read.call_count <= 13


def test_rankings_are_of_attempts_by_the_words_that_runs_step_takes() -> None:
    def ranked(ranking: Sequence[int]) -> list[list[str]]:
        return [re.split(r"  +", line.plain) for line in attempt_list(ROWS, ranking, width=120)][1:]

    slowest = ranked(largest_attempts(ROWS, 3, OutlineRows.took_ms))
    assert [(line[0], *line[-3:]) for line in slowest[:2]] == [
        ("✓ ask --loop 0", "700 ms", "1,200", "$0.01"),
        ("✓ ask --loop 1", "295 ms", "900", "$0.02"),
    ]
    assert slowest[2][0].endswith("--loop 1 --attempt 1")
    assert [line[0][-1] for line in ranked(largest_attempts(ROWS, 9, OutlineRows.cost_usd))] == ["1", "0"]
    # Words that are to be copied are whole, if need be without the axis.
    assert any(
        "--loop 1 --attempt 1" in line.plain
        for line in attempt_list(ROWS, [largest_attempts(ROWS, 3, OutlineRows.took_ms)[2]], width=46)
    )


def test_failed_attempts_come_with_their_errors_and_the_rest_with_its_number() -> None:
    rows = rows_of(NODES, [Attempt("price it", (at,), status="failed") for at in range(MOST_FAILED + 2)])
    read = told(error_context={"code": "X", "message": "no\nprice"})
    _, *lines = [line.plain for line in failed_lines(rows, failed_attempts(rows), read, width=80)]
    assert lines[0].startswith("✗ 'price it' --loop 0  ")
    assert lines[1] == "    X: no price"
    assert lines[2 * MOST_FAILED :] == ["… and 2 attempts more: price it 2 times"]


GRID = [
    Node("rows", "rows", "loop", -1),
    Node("cells", "cells", "loop", 0),
    Node("look", "look", "step", 1),
    Node("count", "count", "step", 0),
    Node("end", "end", "step", -1),
]


def grid(outer: int, inner: int, *others: Attempt) -> OutlineRows:
    """A run of nested loops; `others` come in place of attempts to `look` in the same iteration."""
    attempts: list[Attempt] = []
    for row in range(outer):
        for cell in range(inner):
            looks = [each for each in others if each.path == (row, cell)]
            attempts += looks or [Attempt("look", (row, cell))]
        attempts.append(Attempt("count", (row,)))
    return rows_of(GRID, [*attempts, Attempt("end")])


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
