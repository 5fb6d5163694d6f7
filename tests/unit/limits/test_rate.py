"""The token bucket per key: a minute's worth at once, then evenly, and no memory of who is quiet."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.config.settings import Settings
from runglass.errors import RateLimitError
from runglass.limits.limits import Rates
from runglass.server.http.error_responses import error_headers
from tests.fakes import VirtualClock


def wait_s(rates: Rates, key: int = 1) -> float:
    """How long the key is told to wait; 0 if it may go on."""
    try:
        rates.take(key_id=key, project_id=1)
    except RateLimitError as refused:
        return refused.retry_after_s or math.inf
    return 0


@pytest.mark.parametrize("per_minute", [1, 3, 7, 60, 1000])
def test_a_minutes_worth_may_come_at_once_and_the_next_when_one_is_due(per_minute: int) -> None:
    clock = VirtualClock()
    rates = Rates(Settings(rate_limit_per_minute=per_minute), clock=clock.monotonic_s)
    assert [wait_s(rates) for _ in range(per_minute)] == [0] * per_minute
    assert wait_s(rates) == pytest.approx(60 / per_minute)
    clock.set_back(-60 / per_minute)
    assert wait_s(rates) == 0
    assert wait_s(rates) > 0


def test_only_keys_of_the_last_minute_are_remembered() -> None:
    clock = VirtualClock()
    rates = Rates(Settings(rate_limit_per_minute=60), clock=clock.monotonic_s)
    for key in range(10_000):
        rates.take(key_id=key, project_id=1)
        clock.set_back(-0.5)
    assert rates.of_key is not None
    assert len(rates.of_key) <= 3
    clock.set_back(-60)
    rates.take(key_id=0, project_id=1)
    assert len(rates.of_key) == 1


@given(st.integers(1, 50), st.lists(st.floats(0, 30), max_size=200))
def test_a_key_that_waits_for_retry_after_is_admitted_and_none_gets_more_than_the_limit(
    per_minute: int, pauses_s: list[float]
) -> None:
    clock = VirtualClock()
    rates = Rates(Settings(rate_limit_per_minute=per_minute), clock=clock.monotonic_s)
    for taken, pause_s in enumerate(pauses_s, start=1):
        clock.set_back(-pause_s)
        told_s = wait_s(rates)
        if told_s:
            clock.set_back(-told_s)
            assert wait_s(rates) == 0
        assert taken <= per_minute * (1 + clock.monotonic_s() / 60) + 0.01


@pytest.mark.parametrize(("seconds", "header"), [(0.001, "1"), (1.0, "1"), (1.2, "2"), (59.9, "60")])
def test_the_header_says_whole_seconds_and_at_least_one(seconds: float, header: str) -> None:
    error = RateLimitError("", code="RATE_LIMITED", status=429)
    error.retry_after_s = seconds
    assert error_headers(error) == {"Retry-After": header}


def test_a_key_over_its_own_limit_takes_nothing_from_its_project() -> None:
    rates = Rates(
        Settings(rate_limit_per_minute=2, project_rate_limit_per_minute=4), clock=VirtualClock().monotonic_s
    )
    for _ in range(2):
        rates.take(key_id=1, project_id=1)
    for _ in range(50):
        with pytest.raises(RateLimitError, match=r"this key .*`rate_limit_per_minute`"):
            rates.take(key_id=1, project_id=1)
    for _ in range(2):
        rates.take(key_id=2, project_id=1)
    with pytest.raises(RateLimitError, match="this project"):
        rates.take(key_id=2, project_id=1)
