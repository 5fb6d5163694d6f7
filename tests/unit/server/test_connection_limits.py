"""The door's clock and places, without connections that last."""

import resource
import time
from typing import Any

import pytest

from runglass.errors import FlowExecutionError, RateLimitError
from runglass.server.http.connection_limits import LINGER_S, ConnectionLimiter
from runglass.server.http.descriptors import RESERVE, ConnectionLimits, connection_limits
from runglass.settings import Settings

SETTINGS = Settings(head_time_limit_s=10, body_time_limit_s=20, min_body_bytes_per_s=100)


class Caller:
    """A connection that does nothing by itself."""

    def __init__(self, door: ConnectionLimiter, host: str = "10.0.0.1") -> None:
        self.room = door.room_of(host)
        self.since = 0.0
        self.body_bytes = 0
        self.is_paused = False
        self.unsent = 0
        self.taken = 0
        self.ends: list[str] = []
        door.enter(self)

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
def door() -> ConnectionLimiter:
    return ConnectionLimiter(SETTINGS, ConnectionLimits(in_all=3, per_address=2))


def test_a_body_may_take_a_second_more_for_what_has_come(door: ConnectionLimiter) -> None:
    caller = Caller(door)
    door.begin(caller, always=False)
    door.body_goes_on(caller)
    caller.body_bytes = 500
    door.look(24.9)
    assert caller.ends == []
    door.look(0.2)
    assert caller.ends == ["late body"]


def test_time_in_which_the_server_does_not_read_does_not_count(door: ConnectionLimiter) -> None:
    caller = Caller(door)
    door.begin(caller, always=False)
    door.body_goes_on(caller)
    caller.is_paused = True
    door.look(1000)
    caller.is_paused = False
    door.look(19)
    assert caller.ends == []


def test_a_head_is_late_once_and_a_complete_one_never(door: ConnectionLimiter) -> None:
    slow, quick = Caller(door), Caller(door)
    door.begin(quick, always=False)
    for _ in range(3):
        door.look(11)
    assert (slow.ends, quick.ends) == (["late head"], [])


def test_a_connection_without_a_request_is_ended_after_its_last_answer(door: ConnectionLimiter) -> None:
    busy, idle = Caller(door), Caller(door)
    for caller in (busy, idle):
        door.begin(caller, always=False)
    door.look(100)
    door.rest(idle)
    door.look(SETTINGS.keep_alive_s - 1)
    assert idle.ends == []
    door.look(2)
    assert (busy.ends, idle.ends) == ([], ["idle"])


def test_a_body_that_comes_after_its_answer_is_no_idle_connection(door: ConnectionLimiter) -> None:
    caller = Caller(door)
    door.begin(caller, always=False)
    door.body_goes_on(caller)
    door.look(1)
    caller.body_bytes = 100 * SETTINGS.keep_alive_s
    door.rest(caller)
    door.look(SETTINGS.keep_alive_s + 1)
    assert caller.ends == []
    door.body_ends(caller)
    door.look(SETTINGS.keep_alive_s + 1)
    assert caller.ends == ["idle"]


def test_who_takes_an_answer_slowly_is_left_alone(door: ConnectionLimiter) -> None:
    steady, stuck = Caller(door), Caller(door)
    for caller in (steady, stuck):
        door.begin(caller, always=False)
        caller.unsent = 1000
    for _ in range(20):
        steady.taken += 1
        door.look(10)
    assert (steady.ends, stuck.ends) == ([], ["aborted"])


def test_a_refused_caller_is_cut_off_if_it_stays(door: ConnectionLimiter) -> None:
    caller = Caller(door)
    door.linger(caller)
    door.look(LINGER_S)
    assert caller.ends == []
    door.look(0.1)
    assert caller.ends == ["aborted"]
    assert door.open == 0


def test_places_are_counted_and_given_back(door: ConnectionLimiter) -> None:
    busy = [Caller(door, "10.0.0.1"), Caller(door, "10.0.0.1"), Caller(door, "10.0.0.2")]
    for caller in busy[:2]:
        door.begin(caller, always=False)
    with pytest.raises(RateLimitError, match="max_connections_per_address=2"):
        door.begin(Caller(door, "10.0.0.1"), always=False)
    door.begin(busy[2], always=False)
    with pytest.raises(FlowExecutionError, match="max_connections=3"):
        door.begin(Caller(door, "10.0.0.3"), always=False)
    door.begin(Caller(door, "10.0.0.3"), always=True)
    for caller in busy:
        door.leave(caller)
        door.leave(caller)
    door.begin(Caller(door, "10.0.0.1"), always=False)


def test_the_connection_that_is_spare_for_longest_makes_room(door: ConnectionLimiter) -> None:
    idle = Caller(door, "10.0.0.1")
    door.begin(idle, always=False)
    oldest = Caller(door, "10.0.0.2")
    door.rest(idle)
    newcomers = [Caller(door, f"10.0.1.{number}") for number in range(RESERVE + 2)]
    assert oldest.ends == ["aborted"]
    assert idle.ends == []
    assert all(caller.ends == [] for caller in newcomers)


@pytest.mark.parametrize(("later_s", "goes"), [(0.2, "new"), (10.0, "resting")])
def test_the_time_of_who_never_asked_counts_tenfold(
    door: ConnectionLimiter, monkeypatch: pytest.MonkeyPatch, later_s: float, goes: str
) -> None:
    """Half-open connections displace each other, and idle ones make room for somebody from far away."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    callers = {"resting": Caller(door, "10.0.0.1")}
    door.begin(callers["resting"], always=False)
    door.rest(callers["resting"])
    now[0] += later_s - 0.05
    callers["new"] = Caller(door, "10.0.0.2")
    now[0] += 0.05
    for number in range(RESERVE + 2):
        Caller(door, f"10.0.1.{number}")
    assert {name for name, caller in callers.items() if caller.ends} == {goes}


def test_one_network_of_ipv6_is_one_address(door: ConnectionLimiter) -> None:
    assert door.room_of("2001:db8::1").address == door.room_of("2001:db8::ffff:1").address
    assert door.room_of("2001:db8::1").address != door.room_of("2001:db8:0:1::1").address
    assert door.room_of("::ffff:10.0.0.1").address != door.room_of("::ffff:10.0.0.2").address


def test_heads_that_are_not_complete_hold_a_bounded_amount() -> None:
    door = ConnectionLimiter(SETTINGS, ConnectionLimits(in_all=10_000, per_address=10_000))
    callers = [Caller(door) for _ in range(1100)]
    for caller in callers:
        door.head_goes_on(caller, 65_536)
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
