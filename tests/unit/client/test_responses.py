"""Answers become values, another attempt, or the exception that the contract names, whoever wrote them."""

import math
import pickle
import time
from email.utils import formatdate

import msgspec
import pytest

from runglass import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    AuthenticationError,
    FlowExecutionError,
    FlowFileError,
    FlowNotFoundError,
    InsufficientCreditsError,
    RateLimitError,
    RequestError,
    RunglassError,
)
from runglass.client.core import requests, run_requests
from runglass.client.core.requests import FlowAddress
from runglass.client.core.responses import Answer, ConnectionLost, Outcome, Retries, error_of, finish
from runglass.errors import CODES, Problem, api_error, rate_limited
from runglass.log.trace import Trace

RUNS = requests.runs(flow_id=None, status=None, limit=20, cursor=None)
EXECUTE = run_requests.execution(FlowAddress("a", "p", "s"), version="draft").call()


def answer(status: int, body: object = b"", **headers: str) -> Answer:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, data)


@pytest.mark.parametrize("code", sorted(CODES))
def test_each_code_of_the_contract_raises_what_the_server_raised(code: str) -> None:
    sent = api_error(code, "a sentence", execution_id="e1", step_id="s1", details={"field": "x"})
    detail = {"code": code, "message": "a sentence", "executionId": "e1", "stepId": "s1", "field": "x"}
    with pytest.raises(APIError) as caught:
        finish(RUNS, answer(sent.status, {"detail": detail}, x_request_id="q1"), attempts=1)
    error = caught.value
    assert type(error) is type(sent)
    assert vars(error) == {**vars(sent), "request_id": "q1"} | (
        {"retry_after_s": None} if isinstance(error, RateLimitError) else {}
    )


KINDS = {
    401: AuthenticationError,
    402: InsufficientCreditsError,
    404: FlowNotFoundError,
    429: RateLimitError,
    409: FlowExecutionError,
    502: FlowExecutionError,
}
NO_CODE = [b"<html></html>", b"", b"[]", b'{"detail": null}', b'{"detail": {"code": 7, "message": {}}}']


@pytest.mark.parametrize(("status", "kind"), KINDS.items())
@pytest.mark.parametrize("body", NO_CODE)
def test_a_body_without_a_code_goes_by_its_status(status: int, kind: type[APIError], body: bytes) -> None:
    error = error_of("GET '/x'", answer(status, body))
    assert type(error) is kind
    assert error.status == status
    assert error.code == f"HTTP_{status}"
    assert "GET '/x'" in str(error)
    assert str(status) in str(error)


def test_what_comes_from_elsewhere_is_quoted_in_part_and_the_base_url_doubted() -> None:
    error = error_of("GET '/x'", answer(502, b"<html>A proxy was here" + b"." * 100_000))
    assert "A proxy was here" in str(error)
    assert len(str(error)) < 400
    error = error_of("GET '/x'", answer(404, {"detail": "Not Found"}))
    assert error.code == "HTTP_404"
    assert error.message == "GET '/x' was answered with status 404: 'Not Found'; is the base URL right?"


def test_a_code_of_a_newer_server_is_kept() -> None:
    error = error_of("GET '/x'", answer(409, {"detail": {"code": "BRAND_NEW", "message": "m"}}))
    assert (type(error), error.code, error.message) == (RequestError, "BRAND_NEW", "m")


@pytest.mark.parametrize(
    "error",
    [
        api_error("STEP_FAILED", "m", execution_id="e", step_id="s", details={"n": 1}),
        rate_limited("m", retry_after_s=3),
        FlowFileError([Problem("m", "steps[0]", 3, 5)], file="a.yaml"),
        APITimeoutError("m"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_another_process_hands_on_is_whole(error: RunglassError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_a_refused_request_is_told_from_a_run_that_failed() -> None:
    """The two are one class to whoever caught both before."""
    refused = {code for code in CODES if isinstance(api_error(code, "m"), RequestError)}
    assert {CODES[code].status for code in refused} == {400, 405, 409, 410, 413, 422}
    failed = {code for code in CODES if type(api_error(code, "m")) is FlowExecutionError}
    of_runs = {"TOOL_ITERATION_LIMIT", "STEP_FAILED", "BYOK_KEY_REJECTED"}
    assert failed == of_runs | {"INTERNAL_ERROR", "UNAVAILABLE"}
    assert issubclass(RequestError, FlowExecutionError)


@pytest.mark.parametrize(
    "body", [b"<html>", b"", b"{}", b'{"runs": 7}', b'{"runs": [], "nextCursor": "\xff"}']
)
def test_a_good_status_with_an_unreadable_body_is_no_usable_answer(body: bytes) -> None:
    says = "GET '/flow-runs' was answered with something else"
    with pytest.raises(APIConnectionError, match=says) as caught:
        finish(RUNS, answer(200, body), attempts=1)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        *(("3", 3.0), (" 0 ", 0.0), ("", None), ("soon", None), ("-1", None), ("1.5", None)),
        ("Mon, 01 Jan 9999999999 00:00:00 GMT", None),
    ],
)
def test_retry_after_in_seconds(header: str, seconds: float | None) -> None:
    given = answer(429, {"detail": {"code": "RATE_LIMITED", "message": "m"}}, retry_after=header)
    assert given.retry_after_s == seconds
    error = error_of("GET '/x'", given)
    assert isinstance(error, RateLimitError)
    assert error.retry_after_s == seconds


def test_retry_after_as_a_date() -> None:
    soon = answer(503, retry_after=formatdate(time.time() + 3000, usegmt=True)).retry_after_s
    past = answer(503, retry_after=formatdate(time.time() - 30, usegmt=True)).retry_after_s
    assert soon is not None
    assert 2900 < soon <= 3000
    assert past == 0
    assert answer(503, retry_after="Mon, 01 Jan 2001 00:00:00 -0000").retry_after_s == 0


def test_a_lost_call_says_what_failed_how_often_and_whether_a_run_may_have_started() -> None:
    unsent = ConnectionLost("broke", sent=False, cause=OSError("boom"))
    with pytest.raises(APIConnectionError) as caught:
        finish(EXECUTE, unsent, attempts=3)
    assert str(caught.value) == "POST '/seq/a/p/s/v0/execute' failed after 3 attempts: broke"
    assert caught.value.__cause__ is unsent.cause
    with pytest.raises(APIConnectionError, match="failed: broke; the run may have continued all the same"):
        finish(EXECUTE, ConnectionLost("broke"), attempts=1)
    with pytest.raises(APIConnectionError, match="refused; the run may have continued") as caught:
        finish(EXECUTE, ConnectionLost("refused", sent=False), attempts=2, sent_before=True)
    assert caught.value.may_have_begun
    with pytest.raises(APIConnectionError, match=r"failed after 2 attempts: broke$") as caught:
        finish(RUNS, ConnectionLost("broke"), attempts=2, sent_before=True)
    assert not caught.value.may_have_begun


READ = requests.trace("/flow-runs/r1")
CANCELS = requests.cancel("/flow-runs/r1")
WITHOUT_KEY = requests.RequestSpec(method="POST", path="/x", answer=Trace)


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
    for call in (READ, EXECUTE, CANCELS):
        assert (Retries(call, 2).wait_s(outcome, left_s=math.inf) is not None) is again
    retries = Retries(WITHOUT_KEY, 2)
    assert (retries.wait_s(outcome, left_s=math.inf) is not None) is again_without_key
    retries.wait_s(ConnectionLost("refused", sent=False), left_s=math.inf)
    assert retries.sent is not again_without_key, "one attempt may have reached the server"


def test_retries_end_after_max_retries() -> None:
    retries = Retries(READ, 2, chance=lambda: 1.0)
    waits = [retries.wait_s(answer(503), left_s=math.inf) for _ in range(4)]
    assert waits == [0.5, 1.0, None, None]
    assert retries.attempts == 3
    assert Retries(READ, 0).wait_s(answer(503), left_s=math.inf) is None


def test_retry_after_is_honoured_but_never_shortens_the_backoff() -> None:
    retries = Retries(READ, 9, chance=lambda: 1.0)
    assert retries.wait_s(answer(429, retry_after="7"), left_s=math.inf) == 7
    assert retries.wait_s(answer(503, retry_after="0"), left_s=math.inf) == 1.0


def test_a_wait_beyond_the_calls_bound_is_not_begun() -> None:
    assert Retries(READ, 2, chance=lambda: 1.0).wait_s(answer(503), left_s=0.5) is None
    assert Retries(READ, 2, chance=lambda: 1.0).wait_s(answer(503), left_s=0.51) == 0.5
    assert Retries(READ, 2).wait_s(answer(429, retry_after="30"), left_s=10) is None
    assert Retries(READ, 2).wait_s(answer(429, retry_after="61"), left_s=math.inf) is None
