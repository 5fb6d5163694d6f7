"""Failures that are remembered for a moment: for how long, how many, and how often they are given again."""

from runglass.server.calls import failure_replay
from runglass.server.calls.failure_replay import (
    WITHIN_S,
    FailureReplay,
    ReplayableFailure,
)
from runglass.server.requests.idempotency_key import CallFingerprint


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def call(number: int = 0) -> CallFingerprint:
    return CallFingerprint(1, 1, b"/path", b"%d" % number)


def failure(body: bytes = b"{}", *, stays: bool = False) -> ReplayableFailure:
    return ReplayableFailure(500, body, {}, stays)


def test_a_failure_is_given_again_once_unless_it_stays() -> None:
    found = FailureReplay()
    found.keep(call(1), failure())
    found.keep(call(2), failure(stays=True))
    assert [found.take(call(1)), found.take(call(1))] == [failure(), None]
    assert found.take(call(2)) == found.take(call(2)) == failure(stays=True)
    assert found.take(call(3)) is None


def test_a_failure_is_forgotten_after_its_time() -> None:
    clock = Clock()
    found = FailureReplay(clock=clock)
    found.keep(call(1), failure(stays=True))
    clock.now_s += WITHIN_S - 0.01
    found.keep(call(2), failure())
    assert found.take(call(1)) is not None
    clock.now_s += 0.01
    assert found.take(call(1)) is None
    assert len(found) == 1
    # Another failure of the same call counts from then on.
    found.keep(call(2), failure(b"new"))
    clock.now_s += WITHIN_S - 0.01
    assert found.take(call(2)) == failure(b"new")
    assert not found


def test_failures_of_another_project_push_out_none() -> None:
    found = FailureReplay(clock=Clock())
    mine = CallFingerprint(1, 1, b"/path", b"mine")
    found.keep(mine, failure())
    for number in range(failure_replay.MAX_ANSWERS + 5):
        found.keep(CallFingerprint(2, 2, b"/path", b"%d" % number), failure())
    found.keep(CallFingerprint(2, 2, b"/path", b"large"), failure(b"x" * failure_replay.MAX_BYTES))
    assert found.take(mine) is not None


def test_the_oldest_go_where_there_are_too_many_or_too_large_ones() -> None:
    found = FailureReplay(clock=Clock())
    for number in range(failure_replay.MAX_ANSWERS + 5):
        found.keep(call(number), failure())
    assert len(found) == failure_replay.MAX_ANSWERS
    assert found.take(call(4)) is None
    assert found.take(call(5)) is not None
    found.keep(call(-1), failure(b"x" * (failure_replay.MAX_BYTES - 4)))
    assert len(found) == 3
    found.keep(call(-1), failure(b"y"))
    found.keep(call(-2), failure(b"x" * (failure_replay.MAX_BYTES + 1)))
    assert not found
    found.keep(call(-3), failure())
    assert len(found) == 1
