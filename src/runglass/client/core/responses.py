"""The outcome of an attempt, read as the value of the call or as an exception.

No I/O. The status decides the exception, so that a proxy's error page becomes one too, with an excerpt of it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from types import NoneType
from typing import Any, TypeVar, cast

import msgspec

from runglass.client.core.requests import RequestSpec
from runglass.errors import APIConnectionError, APIError, APITimeoutError, RateLimitError, exception_for

T = TypeVar("T")

_EXCERPT_CHARS = 200


class Answer(msgspec.Struct, frozen=True):
    """A whole HTTP answer; the names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    # Grown as it comes in: the parts of a long trace, kept and joined, would be in memory twice.
    body: bytes | bytearray

    @property
    def retry_after_s(self) -> float | None:
        """The seconds that the server asks the client to wait; None where it does not say."""
        given = self.headers.get("retry-after", "").strip()
        if not given:
            return None
        if given.isdecimal():
            return float(given)
        try:
            until = parsedate_to_datetime(given)
        except ValueError:
            return None
        if until.tzinfo is None:  # the zone `-0000`
            until = until.replace(tzinfo=UTC)
        return max(0.0, (until - datetime.now(UTC)).total_seconds())

    @property
    def excerpt(self) -> str:
        """The beginning of the body, for people."""
        text = self.body[: 4 * _EXCERPT_CHARS].decode(errors="replace").strip()
        return text if len(text) <= _EXCERPT_CHARS else f"{text[:_EXCERPT_CHARS]}…"


class ConnectionLost(msgspec.Struct, frozen=True):
    """No whole answer came. With `sent` false the server cannot have seen the request."""

    reason: str
    sent: bool = True
    cause: Exception | None = None


ENDED_EARLY = ConnectionLost("the server closed the stream before the run had ended")
"""A stream came to its end in good order."""

Outcome = Answer | ConnectionLost


def finish(call: RequestSpec[T], outcome: Outcome, *, attempts: int, sent_before: bool = False) -> T:
    """The value in a good answer; any other outcome is raised as an exception.

    `sent_before` says that an earlier attempt may have reached the server.
    """
    if isinstance(outcome, ConnectionLost):
        tries = "" if attempts == 1 else f" after {attempts} attempts"
        may_have_begun = call.moves_a_run and (outcome.sent or sent_before)
        also = "; the run may have gone on all the same" if may_have_begun else ""
        error = APIConnectionError(f"{call} failed{tries}: {outcome.reason}{also}")
        error.may_have_begun = may_have_begun
        raise error from outcome.cause
    if not 200 <= outcome.status < 300:
        raise error_of(str(call), outcome)
    shape: Any = call.answer
    if shape is NoneType:
        return cast(T, None)
    try:
        value: T = _decoder(shape).decode(outcome.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise APIConnectionError(
            f"{call} was answered with something else than a {getattr(shape, '__name__', shape)} ({error}): "
            f"{outcome.excerpt!r}; is the base URL right and the server as new as this client?"
        ) from error
    return value


def timed_out(call: RequestSpec[Any], seconds: float) -> APITimeoutError:
    """The exception for a call whose wall-clock bound has passed."""
    also = "; the run may still go on: `client.runs()` lists it" if call.moves_a_run else ""
    return APITimeoutError(f"{call} took longer than its timeout of {seconds:g} s{also}")


def error_of(what: str, answer: Answer) -> APIError:
    """The exception for an answer with an error status; `what` is the call, for the message."""
    detail = _detail(answer.body)
    code = detail.pop("code", None)
    message = detail.pop("message", None)
    kind = exception_for(answer.status, code if isinstance(code, str) else None)
    if not isinstance(code, str):
        code = f"HTTP_{answer.status}"
        if isinstance(message, str):
            # Other web servers answer so, and what they say alone would not lead to the cause.
            message = f"{what} was answered with status {answer.status}: {message!r}; is the base URL right?"
    if not isinstance(message, str):
        to = f" (redirect to {answer.headers['location']!r})" if "location" in answer.headers else ""
        message = f"{what} was answered with status {answer.status}{to} and no reason: {answer.excerpt!r}"
    error = kind(
        message,
        code=code,
        status=answer.status,
        execution_id=_text(detail.pop("executionId", None)),
        step_id=_text(detail.pop("stepId", None)),
        request_id=answer.headers.get("x-request-id"),
        details=detail,
    )
    if isinstance(error, RateLimitError):
        error.retry_after_s = answer.retry_after_s
    return error


def _detail(body: bytes | bytearray) -> dict[str, Any]:
    try:
        detail = msgspec.json.decode(body)["detail"]
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, KeyError):
        return {}
    return detail if isinstance(detail, dict) else {"message": detail}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


@cache
def _decoder(shape: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(shape)
