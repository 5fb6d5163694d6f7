"""Fair shares: a flood of one project costs the others little, and nothing lies idle while somebody waits.

The token bucket per key, too. What callers see of that is in `tests/contract/test_limits.py`.
"""

import asyncio
import math
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runglass.config.settings import Settings
from runglass.errors import RateLimitError
from runglass.limits.limits import Rates
from runglass.limits.shares import FairTurns, Shares
from tests.fakes import VirtualClock, in_virtual_time, let_time_pass

FLOOD, GUEST, THIRD = 1, 2, 3


def test_one_project_may_hold_all_places_and_others_still_get_theirs() -> None:
    shares = Shares(4, most=8)
    while shares.may_take(FLOOD):
        shares.take(FLOOD)
    assert shares.held == 4
    # Two share four places: the second gets its two at once, and not one more.
    while shares.may_take(GUEST):
        shares.take(GUEST)
    assert shares.held_by(GUEST) == 2
    while shares.may_take(THIRD):
        shares.take(THIRD)
    assert shares.held_by(THIRD) == 2
    assert not shares.may_take(4), "eight at most, whoever asks"


def test_no_project_holds_more_than_it_may_though_all_else_is_free() -> None:
    shares = Shares(10, most_each=3)
    while shares.may_take(FLOOD):
        shares.take(FLOOD)
    assert shares.held == 3
    assert shares.next([FLOOD, GUEST]) == GUEST


class Work:
    """Projects that always have something to do, served in a time that is only counted."""

    def __init__(self, shares: Shares, costs: dict[int, list[float]]) -> None:
        self._shares = shares
        self._costs = costs
        self._turn = Counter[int]()
        self._ends: list[tuple[float, int]] = []
        self._served: list[tuple[float, int, float]] = []

    def until(self, end: float) -> None:
        now = 0.0
        while now < end:
            while (project := self._shares.next(self._costs)) is not None:
                costs = self._costs[project]
                cost = costs[self._turn[project] % len(costs)]
                self._turn[project] += 1
                self._shares.take(project)
                self._shares.charge(project, cost)
                self._ends.append((now + cost, project))
                self._served.append((now, project, cost))
            now, ended = min(self._ends)
            self._ends.remove((now, ended))
            self._shares.give_back(ended)

    def got(self, project: int, since: float, until: float) -> float:
        """Time that the project was served for between two moments."""
        return sum(
            max(0.0, min(began + cost, until) - max(began, since))
            for began, served, cost in self._served
            if served == project
        )


COSTS = st.lists(st.floats(0.1, 5.0), min_size=1, max_size=6)
LARGEST = 5.0


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(COSTS, st.sampled_from([1.0, 1.0, 2.5, 4.0])), min_size=2, max_size=5),
    st.integers(1, 4),
    st.floats(0.0, 300.0),
    st.floats(50.0, 200.0),
)
def test_over_any_window_projects_that_always_wait_get_as_much_by_their_weight_as_each_other(
    projects: list[tuple[list[float], float]], slots: int, since: float, length: float
) -> None:
    weights = {project: weight for project, (_, weight) in enumerate(projects)}
    # No slot above the number, so that it is the order alone which is fair.
    work = Work(
        Shares(slots, most=slots, weights=weights),
        {project: costs for project, (costs, _) in enumerate(projects)},
    )
    work.until(since + length)
    got = [work.got(project, since, since + length) / weights[project] for project in weights]
    # What goes on cannot be taken away: each may be ahead by what fits into all slots at once, twice.
    assert max(got) - min(got) <= 2 * slots * LARGEST + LARGEST


async def hold(turns: FairTurns, project_id: int, end: asyncio.Event) -> None:
    async with turns.turn(project_id):
        await end.wait()


async def enter(turns: FairTurns, project_id: int, order: list[int], *, size: int = 1) -> None:
    """Takes a turn, and notes whose it was."""
    async with turns.turn(project_id, size):
        order.append(project_id)


async def test_the_project_that_has_used_least_is_next() -> None:
    clock = VirtualClock()
    shares = Shares(1, most=1)
    turns = FairTurns(shares, clock=clock.monotonic_s)
    order: list[str] = []

    async def work(project_id: int, name: str, cost: float) -> None:
        async with turns.turn(project_id):
            order.append(name)
            clock.set_back(-cost)
            await asyncio.sleep(0)

    flood = [work(FLOOD, f"flood {n}", 5.0) for n in range(6)]
    guest = [work(GUEST, f"guest {n}", 1.0) for n in range(6)]
    await asyncio.gather(*flood, *guest)
    assert order[:2] == ["flood 0", "guest 0"]
    assert order.index("guest 5") < order.index("flood 2"), "six short turns are worth a long one"
    assert (shares.held, turns.is_wanted) == (0, False)


@in_virtual_time
async def test_the_time_of_turns_that_go_on_counts() -> None:
    clock = VirtualClock()
    turns = FairTurns(Shares(2, most=2), clock=clock.monotonic_s)
    long, short, order = asyncio.Event(), asyncio.Event(), list[int]()
    async with asyncio.TaskGroup() as group:
        group.create_task(hold(turns, FLOOD, long))
        group.create_task(hold(turns, GUEST, short))
        await asyncio.sleep(0)
        group.create_task(enter(turns, FLOOD, order))
        group.create_task(enter(turns, THIRD, order))
        await asyncio.sleep(0)
        clock.set_back(-100.0)
        short.set()
        await let_time_pass()
        assert order == [THIRD, FLOOD]
        long.set()


async def test_a_large_turn_is_next_though_small_ones_of_others_would_always_fit() -> None:
    shares = Shares(10, most=20)
    turns, order = FairTurns(shares), list[int]()
    async with asyncio.TaskGroup() as group, turns.turn(GUEST):
        group.create_task(enter(turns, FLOOD, order, size=10))
        await asyncio.sleep(0)
        group.create_task(enter(turns, GUEST, order))
        group.create_task(enter(turns, THIRD, order))
        await asyncio.sleep(0)
        assert not order
    assert order[0] == FLOOD
    assert (shares.held, turns.is_wanted) == (0, False)


@pytest.mark.parametrize("granted", [False, True])
async def test_a_turn_that_is_cancelled_while_it_waits_is_free(granted: bool) -> None:
    shares = Shares(1, most=1)
    turns, end = FairTurns(shares), asyncio.Event()
    holder = asyncio.create_task(hold(turns, FLOOD, end))
    waiter = asyncio.create_task(enter(turns, GUEST, []))
    await asyncio.sleep(0)
    last = asyncio.create_task(enter(turns, GUEST, []))
    await asyncio.sleep(0)
    if granted:
        end.set()
        # The holder hands its turn on, and the one that gets it has not heard of it yet.
        await asyncio.sleep(0)
    waiter.cancel()
    end.set()
    await asyncio.gather(holder, last)
    assert waiter.cancelled() or granted
    assert (shares.held, turns.is_wanted) == (0, False)


def wait_s(rates: Rates) -> float:
    """How long a key is told to wait; 0 if it may go on."""
    try:
        rates.take(key_id=1, project_id=1)
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
