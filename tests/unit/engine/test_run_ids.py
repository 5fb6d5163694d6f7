"""The ids of runs: in their order, with the time of the clock in them."""

import uuid
from datetime import timedelta

from runglass.engine.run.idle_runs import RunIds
from runglass.wire.query import created_ms, first_id
from tests.fakes import VirtualClock


def test_an_id_has_the_time_at_which_it_was_given() -> None:
    clock = VirtualClock()
    now_ms = round(clock.now().timestamp() * 1000)
    ids = RunIds(clock)
    given = ids.next()
    assert created_ms(given) == now_ms
    assert first_id(now_ms) <= given < first_id(now_ms + 1)
    assert (uuid.UUID(given).version, uuid.UUID(given).variant) == (7, uuid.RFC_4122)
    clock.set_back(-5)
    assert created_ms(ids.next()) == now_ms + 5000


def test_each_is_higher_than_the_one_before_and_of_this_process_though_the_clock_is_set_back() -> None:
    clock = VirtualClock()
    ids, other = RunIds(clock), RunIds(clock)
    given = [ids.next() for _ in range(1000)]
    assert not {*given} & {other.next() for _ in range(1000)}
    clock.set_back(timedelta(hours=1).total_seconds())
    given += [ids.next() for _ in range(1000)]
    assert given == sorted(set(given))
    assert {uuid.UUID(each).version for each in given} == {7}
    assert {created_ms(each) for each in given} == {created_ms(given[0])}
