"""A run on a terminal: why it is as it is, its tree at any width, and what stands out in it."""

import re
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from runglass.cli.commands.show_run import MOST_FAILED, failed_attempts, failed_lines, largest_attempts
from runglass.cli.terminal.outline_rows import OutlineRows, StepAddress
from runglass.cli.terminal.output import clean
from runglass.cli.terminal.run_view import attempt_list, overview_lines
from runglass.log.trace import ModelCall, RunError, RunSummary, RunTotals, StepTrace
from runglass.outlines.builder import Node
from tests.outlines import Attempt
from tests.unit.cli.outlines import rows_of

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


def unknown(address: StepAddress) -> StepTrace:
    return StepTrace(step_id=address.step_id)


def shown(
    run: RunSummary,
    rows: OutlineRows,
    *,
    width: int | None = 100,
    most: int = 100,
    **about: object,
) -> list[str]:
    def read(address: StepAddress) -> StepTrace:
        return StepTrace(step_id=address.step_id, attempt=address.attempt, **about)  # type: ignore[arg-type]

    lines = overview_lines(run, rows, read, named="00aa", width=width, most=most)
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
    lines = list(overview_lines(run, rows, unknown, named="r", width=width))
    tree = lines[[line.plain for line in lines].index("") + 1 :]
    assert len(tree) == 5
    assert all(line.cell_len <= width and clean(line.plain) == line.plain for line in tree)


def test_errors_that_are_shown_are_few_however_many_there_are() -> None:
    rows = rows_of(NODES, [Attempt("ask", (at,), status="failed") for at in range(500)])
    read: list[StepAddress] = []

    def note(address: StepAddress) -> StepTrace:
        read.append(address)
        return unknown(address)

    list(overview_lines(FAILED, rows, note, named="r", width=None))
    assert 0 < len(read) <= 13


def test_rankings_are_of_attempts_by_the_words_that_runs_step_takes() -> None:
    def told(ranking: Sequence[int]) -> list[list[str]]:
        return [re.split(r"  +", line.plain) for line in attempt_list(ROWS, ranking, width=120)][1:]

    slowest = told(largest_attempts(ROWS, 3, OutlineRows.took_ms))
    assert [(line[0], *line[-3:]) for line in slowest[:2]] == [
        ("✓ ask --loop 0", "700 ms", "1,200", "$0.01"),
        ("✓ ask --loop 1", "295 ms", "900", "$0.02"),
    ]
    assert slowest[2][0].endswith("--loop 1 --attempt 1")
    assert [line[0][-1] for line in told(largest_attempts(ROWS, 9, OutlineRows.cost_usd))] == ["1", "0"]
    # Words that are to be copied are whole, if need be without the axis.
    assert any(
        "--loop 1 --attempt 1" in line.plain
        for line in attempt_list(ROWS, [largest_attempts(ROWS, 3, OutlineRows.took_ms)[2]], width=46)
    )


def test_failed_attempts_come_with_their_errors_and_the_rest_with_its_number() -> None:
    def read(address: StepAddress) -> StepTrace:
        return StepTrace(step_id=address.step_id, error_context={"code": "X", "message": "no\nprice"})

    rows = rows_of(NODES, [Attempt("price it", (at,), status="failed") for at in range(MOST_FAILED + 2)])
    _, *lines = [line.plain for line in failed_lines(rows, failed_attempts(rows), read, width=80)]
    assert lines[0].startswith("✗ 'price it' --loop 0  ")
    assert lines[1] == "    X: no price"
    assert lines[2 * MOST_FAILED :] == ["… and 2 attempts more: price it 2 times"]
