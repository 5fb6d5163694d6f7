"""The token bucket per key. What callers see of it is in `tests/contract/test_limits.py`."""

import math

from hypothesis import example, given
from hypothesis import strategies as st

from runglass.config.settings import Settings
from runglass.errors import RateLimitError
from runglass.limits.limits import Rates
from tests.fakes import VirtualClock


def wait_s(rates: Rates, key: int = 1) -> float:
    """How long the key is told to wait; 0 if it may go on."""
    try:
        rates.take(key_id=key, project_id=1)
    except RateLimitError as refused:
        return refused.retry_after_s or math.inf
    return 0


def test_only_keys_of_the_last_minute_are_remembered() -> None:
    clock = VirtualClock()
    rates = Rates(Settings(rate_limit_per_minute=60), clock=clock.monotonic_s)
    for key in range(10_000):
        rates.take(key_id=key, project_id=1)
        clock.set_back(-0.5)
    assert len(rates.buckets) <= 3
    clock.set_back(-60)
    rates.take(key_id=0, project_id=1)
    assert len(rates.buckets) == 1


@given(st.integers(1, 50), st.lists(st.floats(0, 30), max_size=200))
# As floats, 17 times the 17th part of a minute is more than a minute.
@example(17, [0.0] * 17)
def test_a_minutes_worth_may_come_at_once_and_who_waits_as_told_is_admitted_and_gets_no_more(
    per_minute: int, pauses_s: list[float]
) -> None:
    clock = VirtualClock()
    rates = Rates(Settings(rate_limit_per_minute=per_minute), clock=clock.monotonic_s)
    for taken, pause_s in enumerate(pauses_s, start=1):
        clock.set_back(-pause_s)
        told_s = wait_s(rates)
        if told_s:
            assert taken > per_minute
            assert told_s <= 60 / per_minute + 1e-5, "until the next one is due, and no longer"
            clock.set_back(-told_s)
            assert wait_s(rates) == 0
        assert taken <= per_minute * (1 + clock.monotonic_s() / 60) + 0.01
