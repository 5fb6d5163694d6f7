"""The limiter's clock and limits, with connections that are objects of the test."""

import resource
import time
from typing import Any

import pytest

from runglass.config.settings import Settings
from runglass.errors import FlowExecutionError, RateLimitError
from runglass.server.http.connection_limits import LINGER_S, ConnectionLimiter
from runglass.server.http.connections import RESERVE, ConnectionLimits, connection_limits

SETTINGS = Settings(head_time_limit_s=10, body_time_limit_s=20, min_body_bytes_per_s=100)


class Caller:
    """A connection that does nothing by itself."""

    def __init__(self, limiter: ConnectionLimiter, host: str = "10.0.0.1") -> None:
        self.group = limiter.group_of(host)
        self.since = 0.0
        self.body_bytes = 0
        self.is_paused = False
        self.unsent = 0
        self.taken = 0
        self.ends: list[str] = []
        limiter.add(self)

    def reading_is_paused(self) -> bool:
        return self.is_paused

    def unsent_bytes(self) -> int:
        return self.unsent

    def taken_bytes(self) -> int:
        return self.taken

    def abort(self) -> None:
        self.ends.append("aborted")

    def end_idle(self) -> None:
        self.ends.append("idle")

    def end_late_head(self) -> None:
        self.ends.append("late head")

    def end_late_body(self) -> None:
        self.ends.append("late body")


@pytest.fixture
def limiter() -> ConnectionLimiter:
    return ConnectionLimiter(SETTINGS, ConnectionLimits(in_all=3, per_address=2))


def test_a_body_may_take_a_second_more_for_what_has_come(limiter: ConnectionLimiter) -> None:
    caller = Caller(limiter)
    limiter.begin(caller, always=False)
    limiter.body_goes_on(caller)
    caller.body_bytes = 500
    limiter.check_time(24.9)
    assert caller.ends == []
    limiter.check_time(0.2)
    assert caller.ends == ["late body"]


def test_time_in_which_the_server_does_not_read_does_not_count(limiter: ConnectionLimiter) -> None:
    caller = Caller(limiter)
    limiter.begin(caller, always=False)
    limiter.body_goes_on(caller)
    caller.is_paused = True
    limiter.check_time(1000)
    caller.is_paused = False
    limiter.check_time(19)
    assert caller.ends == []


def test_a_head_is_late_once_and_a_complete_one_never(limiter: ConnectionLimiter) -> None:
    slow, quick = Caller(limiter), Caller(limiter)
    limiter.begin(quick, always=False)
    for _ in range(3):
        limiter.check_time(11)
    assert (slow.ends, quick.ends) == (["late head"], [])


def test_a_connection_without_a_request_is_ended_after_its_last_answer(limiter: ConnectionLimiter) -> None:
    busy, idle = Caller(limiter), Caller(limiter)
    for caller in (busy, idle):
        limiter.begin(caller, always=False)
    limiter.check_time(100)
    limiter.end_request(idle)
    limiter.check_time(SETTINGS.keep_alive_s - 1)
    assert idle.ends == []
    limiter.check_time(2)
    assert (busy.ends, idle.ends) == ([], ["idle"])


def test_a_body_that_comes_after_its_answer_is_no_idle_connection(limiter: ConnectionLimiter) -> None:
    caller = Caller(limiter)
    limiter.begin(caller, always=False)
    limiter.body_goes_on(caller)
    limiter.check_time(1)
    caller.body_bytes = 100 * SETTINGS.keep_alive_s
    limiter.end_request(caller)
    limiter.check_time(SETTINGS.keep_alive_s + 1)
    assert caller.ends == []
    limiter.body_ends(caller)
    limiter.check_time(SETTINGS.keep_alive_s + 1)
    assert caller.ends == ["idle"]


def test_a_connection_that_takes_its_answer_slowly_is_not_cut(limiter: ConnectionLimiter) -> None:
    steady, stuck = Caller(limiter), Caller(limiter)
    for caller in (steady, stuck):
        limiter.begin(caller, always=False)
        caller.unsent = 1000
    for _ in range(20):
        steady.taken += 1
        limiter.check_time(10)
    assert (steady.ends, stuck.ends) == ([], ["aborted"])


def test_a_refused_caller_is_cut_off_if_it_stays(limiter: ConnectionLimiter) -> None:
    caller = Caller(limiter)
    limiter.linger(caller)
    limiter.check_time(LINGER_S)
    assert caller.ends == []
    limiter.check_time(0.1)
    assert caller.ends == ["aborted"]
    assert limiter.open == 0


def test_places_are_counted_and_given_back(limiter: ConnectionLimiter) -> None:
    busy = [Caller(limiter, "10.0.0.1"), Caller(limiter, "10.0.0.1"), Caller(limiter, "10.0.0.2")]
    for caller in busy[:2]:
        limiter.begin(caller, always=False)
    with pytest.raises(RateLimitError, match="max_connections_per_address=2"):
        limiter.begin(Caller(limiter, "10.0.0.1"), always=False)
    limiter.begin(busy[2], always=False)
    with pytest.raises(FlowExecutionError, match="max_connections=3"):
        limiter.begin(Caller(limiter, "10.0.0.3"), always=False)
    limiter.begin(Caller(limiter, "10.0.0.3"), always=True)
    for caller in busy:
        limiter.remove(caller)
        limiter.remove(caller)
    limiter.begin(Caller(limiter, "10.0.0.1"), always=False)


def test_the_connection_that_is_idle_for_longest_makes_room(limiter: ConnectionLimiter) -> None:
    idle = Caller(limiter, "10.0.0.1")
    limiter.begin(idle, always=False)
    oldest = Caller(limiter, "10.0.0.2")
    limiter.end_request(idle)
    newcomers = [Caller(limiter, f"10.0.1.{number}") for number in range(RESERVE + 2)]
    assert oldest.ends == ["aborted"]
    assert idle.ends == []
    assert all(caller.ends == [] for caller in newcomers)


@pytest.mark.parametrize(("later_s", "goes"), [(0.2, "new"), (10.0, "resting")])
def test_the_time_of_a_connection_without_a_request_counts_tenfold(
    limiter: ConnectionLimiter, monkeypatch: pytest.MonkeyPatch, later_s: float, goes: str
) -> None:
    """Half-open connections displace each other, and idle ones make room for somebody from far away."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    callers = {"resting": Caller(limiter, "10.0.0.1")}
    limiter.begin(callers["resting"], always=False)
    limiter.end_request(callers["resting"])
    now[0] += later_s - 0.05
    callers["new"] = Caller(limiter, "10.0.0.2")
    now[0] += 0.05
    for number in range(RESERVE + 2):
        Caller(limiter, f"10.0.1.{number}")
    assert {name for name, caller in callers.items() if caller.ends} == {goes}


def test_one_network_of_ipv6_is_one_address(limiter: ConnectionLimiter) -> None:
    assert limiter.group_of("2001:db8::1").address == limiter.group_of("2001:db8::ffff:1").address
    assert limiter.group_of("2001:db8::1").address != limiter.group_of("2001:db8:0:1::1").address
    assert limiter.group_of("::ffff:10.0.0.1").address != limiter.group_of("::ffff:10.0.0.2").address


def test_heads_that_are_not_complete_hold_a_bounded_amount() -> None:
    limiter = ConnectionLimiter(SETTINGS, ConnectionLimits(in_all=10_000, per_address=10_000))
    callers = [Caller(limiter) for _ in range(1100)]
    for caller in callers:
        limiter.head_goes_on(caller, 65_536)
    assert [bool(caller.ends) for caller in callers] == [True] * 76 + [False] * 1024


@pytest.mark.parametrize(
    ("descriptors", "settings", "limits"),
    [
        (1024, {}, (752, 676)),
        (256, {}, (176, 158)),
        (20_000, {}, (17_936, 16_142)),
        (1 << 20, {}, (20_000, 18_000)),
        (1 << 20, {"max_connections": 100_000}, (100_000, 90_000)),
        (1024, {"max_connections": 5000, "max_connections_per_address": 5000}, (752, 752)),
        (1024, {"max_connections": 10, "max_connections_per_address": 3}, (10, 3)),
    ],
)
def test_descriptors_are_kept_back(
    monkeypatch: pytest.MonkeyPatch, descriptors: int, settings: dict[str, Any], limits: tuple[int, int]
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    assert connection_limits(Settings(**settings)) == limits
