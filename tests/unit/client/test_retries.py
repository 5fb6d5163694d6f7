"""Which failure of which call is tried again, and after how long."""

import math

import pytest

from runglass.client.core import requests, run_requests
from runglass.client.core.requests import FlowAddress
from runglass.client.core.responses import Answer, ConnectionLost, Outcome, Retries
from runglass.log.trace import Trace

READ = requests.trace("/flow-runs/r1")
EXECUTE = run_requests.execution(FlowAddress("a", "p", "s"), version="draft").call()
CANCEL = requests.cancel("/flow-runs/r1")
WITHOUT_KEY = requests.RequestSpec(method="POST", path="/x", answer=Trace)


def answer(status: int, retry_after: str = "") -> Answer:
    return Answer(status, {"retry-after": retry_after} if retry_after else {}, b"")


@pytest.mark.parametrize(
    ("outcome", "again", "again_without_key"),
    [
        (ConnectionLost("refused", sent=False), True, True),
        (ConnectionLost("broke off"), True, False),
        (answer(429), True, True),
        (answer(503), True, True),
        (answer(502), True, False),
        (answer(504), True, False),
        (answer(500), False, False),
        (answer(200), False, False),
        (answer(409), False, False),
    ],
)
def test_whether_a_call_is_tried_again_depends_on_its_kind_and_the_outcome(
    outcome: Outcome, again: bool, again_without_key: bool
) -> None:
    for call in (READ, EXECUTE, CANCEL):
        assert (Retries(call, 2).wait_s(outcome, left_s=math.inf) is not None) is again
    assert (Retries(WITHOUT_KEY, 2).wait_s(outcome, left_s=math.inf) is not None) is again_without_key


def test_retries_end_after_max_retries() -> None:
    retries = Retries(READ, 2, chance=lambda: 1.0)
    waits = [retries.wait_s(answer(503), left_s=math.inf) for _ in range(4)]
    assert waits == [0.5, 1.0, None, None]
    assert retries.attempts == 3
    assert Retries(READ, 0).wait_s(answer(503), left_s=math.inf) is None


def test_retry_after_is_honoured_but_never_shortens_the_backoff() -> None:
    retries = Retries(READ, 9, chance=lambda: 1.0)
    assert retries.wait_s(answer(429, "7"), left_s=math.inf) == 7
    assert retries.wait_s(answer(503, "0"), left_s=math.inf) == 1.0


def test_a_wait_beyond_the_calls_bound_is_not_begun() -> None:
    assert Retries(READ, 2, chance=lambda: 1.0).wait_s(answer(503), left_s=0.5) is None
    assert Retries(READ, 2, chance=lambda: 1.0).wait_s(answer(503), left_s=0.51) == 0.5
    assert Retries(READ, 2).wait_s(answer(429, "30"), left_s=10) is None
    assert Retries(READ, 2).wait_s(answer(429, "61"), left_s=math.inf) is None


@pytest.mark.parametrize(
    ("outcomes", "sent"),
    [
        ([ConnectionLost("refused", sent=False), answer(503), answer(429)], False),
        ([ConnectionLost("broke off"), ConnectionLost("refused", sent=False)], True),
        ([answer(504), answer(503)], True),
    ],
)
def test_retries_know_whether_an_attempt_may_have_reached_the_server(
    outcomes: list[Outcome], sent: bool
) -> None:
    retries = Retries(EXECUTE, len(outcomes))
    for outcome in outcomes:
        retries.wait_s(outcome, left_s=math.inf)
    assert retries.sent is sent
