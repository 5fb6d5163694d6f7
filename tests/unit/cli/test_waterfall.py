"""Bars on the time axis: where they begin and end, how states differ, and that they stay inside."""

from hypothesis import given, settings
from hypothesis import strategies as st

from runglass.cli.terminal.outline_view import DASHED, DOTTED, THIN, Bar, TimeAxis


def test_a_bar_begins_and_ends_at_half_a_cell() -> None:
    axis = TimeAxis(0, 100, 10)
    assert axis.drawn(Bar(0, 100, "completed")).plain == "━" * 10
    assert axis.drawn(Bar(15, 45, "completed")).plain == " ╺━━╸     "
    assert axis.drawn(Bar(15, 45, "completed", THIN)).plain == " ╶──╴     "


def test_the_shortest_step_is_seen_at_the_end_of_the_axis_too() -> None:
    axis = TimeAxis(0, 100_000, 10)
    assert axis.drawn(Bar(0, 0, "completed")).plain.strip() == "╸"
    assert axis.drawn(Bar(100_000, 100_000, "completed")).plain == " " * 9 + "╺"


def test_what_goes_on_has_no_end() -> None:
    axis = TimeAxis(0, 100, 6)
    assert axis.drawn(Bar(50, -1, "running")).plain == "   ━━▸"
    assert axis.drawn(Bar(50, -1, "waiting", DASHED)).plain == "   ┄┄▸"
    assert axis.drawn(Bar(-1, -1, "skipped")).plain == " " * 6


def test_attempts_lie_on_the_wait_between_them() -> None:
    axis = TimeAxis(0, 100, 10)
    line = axis.drawn(Bar(0, 100, "", DOTTED), Bar(0, 20, "retried"), Bar(80, 100, "completed"))
    assert line.plain == "━━······━━"


def test_an_axis_says_from_when_to_when_it_goes() -> None:
    assert TimeAxis(0, 1500, 40).header().split() == ["0", "750", "ms", "1.50", "s"]
    assert TimeAxis(500, 1500, 14).header() == "500 ms  1.50 s"
    assert TimeAxis(0, 1500, 3).header() == "   "


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
