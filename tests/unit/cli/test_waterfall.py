"""Bars on the time axis: where they begin and end, how states differ, and that they stay inside."""

from hypothesis import given, settings
from hypothesis import strategies as st

from runglass.cli.terminal.outline_view import Bar, TimeAxis


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
