"""The cursor of a stream that can be resumed: what it has had, and when a broken one is given up.

No I/O: a transport makes the request `call()`, feeds the bytes in and reports each loss. Across any number of
connections each thing comes out once, in order: of a live trace every event, with the terminal one last. The
stream that answers one call of a step-through ends with the step, and is begun anew when it is lost.
"""

import math
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from types import NoneType
from typing import ClassVar, Generic, TypeVar

import msgspec

from runglass.client.core.requests import RequestSpec
from runglass.client.core.responses import ENDED_EARLY, Answer, ConnectionLost, Outcome, error_of, finish
from runglass.client.core.retries import PASSING, Retries, backoff_s
from runglass.errors import APIConnectionError
from runglass.log.events import (
    FlowCancelled,
    FlowCompleted,
    FlowFailed,
    StepError,
    StepPaused,
    StepPausedForToolCalls,
    StreamEvent,
    decode_event,
    is_terminal,
)
from runglass.wire.sse import Decoder, Frame, FrameTooLarge

SILENCE_S = 45.0
"""A server pings every 15 s; a stream that has missed three pings is lost."""

# A proxy that compresses may hold back events until its window is full.
STREAM_HEADERS = {
    "Accept": "text/event-stream",
    "Accept-Encoding": "identity",
    "Cache-Control": "no-store",
}

_PING_S = 15.0
_DEFAULT_RETRY_S = 1.0
_MOST_S = 8.0
_AT_ONCE_S = 0.05
"""The wait after a stream that brought events, as the next stream will probably bring more."""


News = TypeVar("News")


class ResumingCursor(ABC, Generic[News]):
    """Follows a stream over any number of connections; what a frame says is for those that derive from it.

    Gives up after `first_attempts` connections where none has ever opened, and later after `attempts` in a
    row (about half a minute, enough for a server to restart). A connection counts against that unless it
    brought an event or kept talking for as long as a ping takes. After one that brought an event the next is
    opened at once.
    """

    about: ClassVar[str]
    """What the stream is called in messages."""
    begins_at: ClassVar[int] = 0
    """In place of a number, until the first one has come; no request names it."""

    def __init__(
        self,
        path: str,
        *,
        query: tuple[tuple[str, str], ...] = (),
        first_attempts: int = 3,
        attempts: int = 8,
        now: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.path = path
        self.last = self.begins_at
        self._query = query
        self.ended = False
        self.gap: ConnectionLost | None = None
        self._first_attempts = first_attempts
        self._attempts = attempts
        self._now = now
        self._chance = chance
        self._decoder = Decoder()
        self._retry_s = _DEFAULT_RETRY_S
        self._opened_at: float | None = None
        self._heard_at = 0.0
        self._ever_opened = False
        self._brought_news = False
        self._failures = 0

    def call(self) -> RequestSpec[None]:
        """The request for the stream, after the last event that has come."""
        resumed = {} if self.last == self.begins_at else {"Last-Event-ID": str(self.last)}
        headers = STREAM_HEADERS | resumed
        return RequestSpec(method="GET", path=self.path, query=self._query, answer=NoneType, headers=headers)

    def opened(self) -> None:
        """A connection stands; what follows through `feed` is a new stream."""
        self._decoder = Decoder()
        self.gap = None
        self._ever_opened = True
        self._brought_news = False
        self._opened_at = self._heard_at = self._now()

    def feed(self, chunk: bytes) -> Iterator[News]:
        """What is new and ends in these bytes.

        Afterwards `ended` says whether the run is over, and `gap` is set where the stream left out an event
        and must be opened again. Raises APIConnectionError for a fault that no new connection can mend.
        """
        self._heard_at = self._now()
        frames = _frames(self._decoder, chunk, self)
        if self._decoder.retry_ms is not None:
            self._retry_s = self._decoder.retry_ms / 1000
        return self._news(frames)

    @abstractmethod
    def _news(self, frames: Sequence[Frame]) -> Iterator[News]:
        """What the frames say that is new; moves `last` on, and says that there was news."""

    def lost(self, outcome: Outcome) -> float:
        """Seconds to wait before the stream is opened again.

        Raises APIError where the server refuses the stream, APIConnectionError after too many failures.
        """
        if isinstance(outcome, Answer) and outcome.status not in PASSING:
            if outcome.status >= 300:
                raise error_of(str(self), outcome)
            raise no_stream(str(self), outcome)
        if self._brought_news:
            self._brought_news, self._opened_at = False, None
            return backoff_s(1, first_s=min(_AT_ONCE_S, self._retry_s), chance=self._chance)
        if self._opened_at is not None and self._heard_at - self._opened_at >= _PING_S:
            self._failures = 0
        self._opened_at = None
        self._failures += 1
        if self._failures >= (self._attempts if self._ever_opened else self._first_attempts):
            if isinstance(outcome, ConnectionLost):
                reason, cause = outcome.reason, outcome.cause
            else:
                cause = error_of(str(self), outcome)
                reason = str(cause)
            tries = f"{self._failures} attempt{'' if self._failures == 1 else 's'}"
            # A list that never answered has no number yet.
            at = f", at event {self.last}" if self.last >= 0 else ""
            raise APIConnectionError(
                f"{self}: gave up after {tries} that brought nothing new{at}; the last one: {reason}"
            ) from cause
        wait_s = backoff_s(
            self._failures, first_s=self._retry_s, most_s=max(_MOST_S, self._retry_s), chance=self._chance
        )
        asked_s = outcome.retry_after_s if isinstance(outcome, Answer) else None
        return wait_s if asked_s is None else max(wait_s, min(asked_s, SILENCE_S))

    def __str__(self) -> str:
        return f"{self.about} {self.path!r}"


class TailCursor(ResumingCursor[StreamEvent]):
    """Follows one run."""

    about = "live trace"

    def _news(self, frames: Sequence[Frame]) -> Iterator[StreamEvent]:
        for frame in frames:
            event, seq = read_frame(frame, self)
            if seq == 0:
                raise APIConnectionError(
                    f"{self}: an event {event.event_type!r} after {self.last} has no number"
                )
            if seq <= self.last:
                continue
            if seq > self.last + 1:
                self.gap = ConnectionLost(f"event {seq} came where {self.last + 1} was due")
                return
            self.last = seq
            self._brought_news = True
            self._failures = 0
            self.ended = is_terminal(event)
            yield event
            if self.ended:
                return


def _frames(decoder: Decoder, chunk: bytes, what: object) -> list[Frame]:
    try:
        return decoder.feed(chunk)
    except FrameTooLarge as error:
        raise APIConnectionError(f"{what}: {error}") from error


def read_frame(frame: Frame, what: object) -> tuple[StreamEvent, int]:
    """An event and its number: that of the event, else that of its frame, else 0.

    Raises APIConnectionError for a frame that cannot be read; `what` is the stream, for the message.
    """
    try:
        event = decode_event(frame.data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise APIConnectionError(
            f"{what}: event {frame.id or '(without id)'} is not readable ({error}): {frame.data[:100]!r}"
        ) from error
    if event.seq > 0:
        return event, event.seq
    return event, int(frame.id) if frame.id.isdecimal() else 0


def no_stream(what: str, answer: Answer) -> APIConnectionError:
    """The exception for a good answer that is no event stream."""
    kind = answer.headers.get("content-type", "no type")
    return APIConnectionError(
        f"{what} was answered with something else than an event stream ({kind}): "
        f"{answer.excerpt!r}; is the base URL right?"
    )


ENDS = (StepPaused, StepPausedForToolCalls, FlowCompleted, FlowFailed, FlowCancelled)
"""The events with which the answer to a call ends."""


class StepStream:
    """Follows the answer to `call` over any number of attempts; each event comes once."""

    def __init__(self, call: RequestSpec[None], max_retries: int) -> None:
        self.ended = False
        self.gap: ConnectionLost | None = None
        self._call = call
        self._retries = Retries(call, max_retries)
        self._farthest = (0, 0)
        self._last: StreamEvent | None = None
        self.opened()

    def call(self) -> RequestSpec[None]:
        """The request for the events; each attempt has the same key, so that the step is not run twice."""
        return self._call

    def opened(self) -> None:
        """Begins a new stream, as a connection has been made."""
        self._decoder = Decoder()
        self._position = (0, 0)

    def feed(self, chunk: bytes) -> Iterator[StreamEvent]:
        """The new events that end in these bytes. Raises APIConnectionError for bytes that cannot be read."""
        for frame in _frames(self._decoder, chunk, self):
            event, seq = read_frame(frame, self)
            if self._last is not None and event.execution_id != self._last.execution_id:
                raise APIConnectionError(
                    f"{self}: its answer broke off in run {self._last.execution_id!r} and began anew in run "
                    f"{event.execution_id!r}: the server does not honour Idempotency-Keys here"
                )
            number, beside = self._position
            if seq > number:
                self._position = (seq, 0)
            elif event.seq == 0:
                # An event without a number is none of the run's log, and known by its distance from the last
                # numbered one, whose number the decoder has given to its frame.
                self._position = (number, beside + 1)
            else:
                continue
            if self._position > self._farthest:
                # It has not come on an earlier connection.
                self._farthest, self._last = self._position, event
                yield event

    def lost(self, outcome: Outcome) -> float | None:
        """Seconds to wait before the call is made again, None where its answer is complete.

        Raises as `answers.finish` does where the call has failed for good.
        """
        if isinstance(outcome, ConnectionLost):
            # A failed step ends the answer as well, unless the flow continues on errors.
            ends = (*ENDS, StepError) if outcome == ENDED_EARLY else ENDS
            if isinstance(self._last, ends):
                return None
        elif 200 <= outcome.status < 300:
            raise no_stream(str(self), outcome)
        wait_s = self._retries.wait_s(outcome, left_s=math.inf)
        if wait_s is None:
            finish(self._call, outcome, attempts=self._retries.attempts, sent_before=self._retries.sent)
        return wait_s

    def __str__(self) -> str:
        return str(self._call)
