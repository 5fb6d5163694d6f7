"""The outcome of an attempt: the value of the call, an exception, or another attempt, and after how long.

No I/O: transports do the waiting. The status decides the exception, so that a proxy's error page becomes one
too, with an excerpt of it.

A read may be tried again after any loss, and so may a call that starts or resumes a run: all its attempts
carry one Idempotency-Key, under which the server does it once and repeats the response. Any other call is
tried again only where the server cannot have done it: no connection was made, or the server itself said so
(429, 503).
"""

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
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
        except (ValueError, OverflowError):
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
        also = "; the run may have continued all the same" if may_have_begun else ""
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
    also = "; the run may still be active: `client.runs()` lists it" if call.moves_a_run else ""
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


NOTHING_DONE: frozenset[int] = frozenset({429, 503})
PASSING: frozenset[int] = frozenset({429, 502, 503, 504})
"""Statuses of a server, or of a proxy before it, that may soon pass."""

_FIRST_S = 0.5
_MOST_S = 8.0
_LONGEST_ASKED_S = 60.0


def backoff_s(
    failures: int,
    *,
    first_s: float = _FIRST_S,
    most_s: float = _MOST_S,
    chance: Callable[[], float] = random.random,
) -> float:
    """Seconds to wait after so many failures in a row: doubling, and partly random."""
    return min(most_s, first_s * 2.0 ** min(failures - 1, 16)) * (0.5 + chance() / 2)


class Retries:
    """The retries of one call; `attempts` counts the attempts made.

    `sent` says whether one of them may have reached the server.
    """

    def __init__(
        self, call: RequestSpec[Any], max_retries: int, *, chance: Callable[[], float] = random.random
    ) -> None:
        self._call = call
        self._max_retries = max_retries
        self._chance = chance
        self.attempts = 1
        self.sent = False

    def wait_s(self, outcome: Outcome, *, left_s: float) -> float | None:
        """Seconds to wait before another attempt; None where this outcome is final.

        It is final too where the wait would use up `left_s`, the time that the call has left, or where the
        server asks for more than a minute, so that the caller gets the true cause at once.
        """
        self.sent |= (
            outcome.sent if isinstance(outcome, ConnectionLost) else outcome.status not in NOTHING_DONE
        )
        if isinstance(outcome, Answer):
            may_repeat = outcome.status in (PASSING if self._call.repeatable else NOTHING_DONE)
        else:
            may_repeat = self._call.repeatable or not outcome.sent
        if self.attempts > self._max_retries or not may_repeat:
            return None
        wait_s = backoff_s(self.attempts, chance=self._chance)
        asked_s = outcome.retry_after_s if isinstance(outcome, Answer) else None
        if asked_s is not None:
            if asked_s > _LONGEST_ASKED_S:
                return None
            wait_s = max(wait_s, asked_s)
        if wait_s >= left_s:
            return None
        self.attempts += 1
        return wait_s


class Download:
    """Reads the body of the answer to `call` part by part; asked for again where none of it has come."""

    ended = False
    gap: ConnectionLost | None = None

    def __init__(self, call: RequestSpec[None], max_retries: int) -> None:
        self._call = call
        self._retries = Retries(call, max_retries)
        self._has_begun = False

    def call(self) -> RequestSpec[None]:
        """The request for the body."""
        return self._call

    def opened(self) -> None:
        """Does nothing: of a body that has begun nothing is asked for again."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The part as it is."""
        self._has_begun = True
        yield chunk

    def lost(self, outcome: Outcome) -> float | None:
        """Seconds to wait before the call is made again, None where its answer is complete.

        Raises as `finish` does where it has failed for good, and APIConnectionError where it breaks off.
        """
        if outcome is ENDED_EARLY:
            return None
        wait_s = None if self._has_begun else self._retries.wait_s(outcome, left_s=math.inf)
        if wait_s is None:
            finish(self._call, outcome, attempts=self._retries.attempts)
        return wait_s

    def __str__(self) -> str:
        return str(self._call)


_WAKES_EARLY_S = 0.005


class Deadline:
    """Ends `seconds` from now, or from the latest `renew()`, and never later than `within`.

    Infinite seconds never end. Timeouts of HTTP libraries bound one socket operation each, so a server that
    drips a byte at a time stretches a call without end. A deadline is asked before every wait instead.
    """

    def __init__(
        self,
        seconds: float,
        *,
        within: "Deadline | None" = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds = seconds
        self._within = within
        self._now = now
        self._ends_at = now() + seconds

    def renew(self) -> None:
        """Starts the same time again."""
        self._ends_at = self._now() + self.seconds

    def left_s(self) -> float:
        """Seconds left: infinite where there is no bound, 0 or less when it has passed."""
        left_s = self._ends_at - self._now()
        return left_s if self._within is None else min(left_s, self._within.left_s())

    def passed(self) -> bool:
        """Whether a wait that has just timed out did so because of this deadline."""
        # Clocks of the kernel and of Python differ a little.
        return self.left_s() <= _WAKES_EARLY_S

    def bound_s(self) -> float | None:
        """The same as `left_s`, but None for no bound, as the standard library has it."""
        left = self.left_s()
        return None if math.isinf(left) else max(left, 0.0)
