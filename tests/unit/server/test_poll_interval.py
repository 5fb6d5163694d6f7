import pytest

from runglass.server.stream import poll_interval_s


@pytest.mark.parametrize(
    ("poll_s", "ping_s"), [(2.0, 15.0), (2.0, 0.05), (0.3, 1.0), (15.0, 15.0), (0.1, 7.3)]
)
def test_pings_fall_due_on_a_poll_and_polls_are_never_rarer_than_asked(poll_s: float, ping_s: float) -> None:
    interval_s = poll_interval_s(poll_s=poll_s, ping_s=ping_s)
    assert interval_s <= poll_s
    assert (ping_s / interval_s) == pytest.approx(round(ping_s / interval_s))
