"""Failures that are remembered for a moment: for how long, how many, and how often they are given again."""

from runglass.errors import APIError, api_error
from runglass.runtime.runtime import FixedLimits
from runglass.server.calls import idempotency
from runglass.server.calls.call import CallFingerprint, StoredResponse
from runglass.server.calls.idempotency import FailureReplay
from runglass.server.http.error_responses import error_body
from tests.fakes import VirtualClock

WITHIN_S = 3.0


def call(number: int = 0, *, project_id: int = 1) -> CallFingerprint:
    return CallFingerprint(project_id, project_id, b"%d" % number)


def failure(message: str = "it broke") -> APIError:
    return api_error("STEP_FAILED", message, execution_id="the run")


def large(size: int) -> APIError:
    """A failure whose body has so many bytes."""
    return failure("x" * (size - len(error_body(failure("")))))


def test_a_failure_is_forgotten_after_its_time() -> None:
    clock = VirtualClock()
    found = FailureReplay(WITHIN_S, clock=clock.monotonic_s)
    assert FixedLimits().repeated_s == WITHIN_S
    found.keep(call(1), failure(), stays=True)
    clock.set_back(-(WITHIN_S - 0.01))
    found.keep(call(2), failure(), stays=False)
    assert found.take(call(1)) is not None
    clock.set_back(-0.01)
    assert found.take(call(1)) is None
    # Another failure of the same call counts from then on.
    found.keep(call(2), failure("new"), stays=False)
    clock.set_back(-(WITHIN_S - 0.01))
    assert found.take(call(2)) == StoredResponse(500, error_body(failure("new")), {})
    assert found.take(call(2)) is None


def test_failures_of_another_project_push_out_none() -> None:
    found = FailureReplay(WITHIN_S, clock=VirtualClock().monotonic_s)
    found.keep(call(1), failure(), stays=False)
    for number in range(idempotency.MAX_ANSWERS + 5):
        found.keep(call(number, project_id=2), failure(), stays=False)
    found.keep(call(-1, project_id=2), large(idempotency.MAX_BYTES), stays=False)
    assert found.take(call(1)) is not None


def test_the_oldest_go_where_there_are_too_many_or_too_large_ones() -> None:
    found = FailureReplay(WITHIN_S, clock=VirtualClock().monotonic_s)
    last = idempotency.MAX_ANSWERS + 4
    for number in range(last + 1):
        found.keep(call(number), failure(), stays=True)
    assert found.take(call(4)) is None
    assert found.take(call(5)) is not None
    found.keep(call(-1), large(idempotency.MAX_BYTES - 2 * len(error_body(failure()))), stays=True)
    assert found.take(call(last - 2)) is None
    assert found.take(call(last - 1)) is not None
    found.keep(call(-1), failure("y"), stays=True)
    assert found.take(call(last - 1)) is not None
    found.keep(call(-2), large(idempotency.MAX_BYTES + 1), stays=True)
    assert [found.take(call(number)) for number in (last, -1, -2)] == [None] * 3
    found.keep(call(-3), failure(), stays=True)
    assert found.take(call(-3)) is not None
