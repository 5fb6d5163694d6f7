"""A clock that processes share: it says what it was told last, whatever the clock of its machine does."""

from datetime import UTC, datetime, timedelta

import pytest

from runglass.support.clock import SharedClock
from tests.fakes import VirtualClock

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Machine(VirtualClock):
    """A machine whose time of day is set by hand; its monotonic clock goes on by `pass_s`."""

    def __init__(self) -> None:
        super().__init__()
        self.time_of_day = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time_of_day

    def pass_s(self, seconds: float) -> None:
        self._elapsed_s += seconds


@pytest.fixture
def machine() -> Machine:
    return Machine()


def tell(clock: SharedClock, machine: Machine, moment: datetime, *, took_s: float = 0.002) -> None:
    """Tells it a time that was true in the middle of a round trip."""
    asked_s = clock.monotonic_s()
    machine.pass_s(took_s)
    clock.tell(moment - timedelta(seconds=took_s / 2), asked_s=asked_s)


def off_s(clock: SharedClock, moment: datetime) -> float:
    return abs((clock.now() - moment).total_seconds())


def test_it_goes_on_from_what_it_was_told_whatever_time_it_is_on_its_machine(machine: Machine) -> None:
    clock = SharedClock(machine)
    tell(clock, machine, NOON)
    assert off_s(clock, NOON) < 1e-3
    machine.time_of_day += timedelta(hours=1)
    machine.pass_s(5)
    assert off_s(clock, NOON + timedelta(seconds=5)) < 1e-3
    assert clock.now().tzinfo is UTC


def test_an_answer_that_took_long_moves_it_only_where_it_knows_less(machine: Machine) -> None:
    clock = SharedClock(machine)
    tell(clock, machine, NOON, took_s=4)
    assert off_s(clock, NOON) < 1e-3, "the middle of what is possible"
    tell(clock, machine, NOON)
    tell(clock, machine, NOON + timedelta(seconds=2), took_s=4)
    assert off_s(clock, NOON + timedelta(seconds=4)) < 1e-3, "it was told at once, and that is passed over"
    machine.pass_s(10_000)
    tell(clock, machine, NOON, took_s=4)
    assert off_s(clock, NOON) < 1e-3, "the clocks may have diverged by as much"


@pytest.mark.parametrize("by", [timedelta(hours=-1), timedelta(seconds=5), timedelta(days=400)])
def test_a_clock_that_was_set_is_followed_at_once(machine: Machine, by: timedelta) -> None:
    clock = SharedClock(machine)
    tell(clock, machine, NOON)
    tell(clock, machine, NOON + by, took_s=3)
    assert off_s(clock, NOON + by) < 1e-3
