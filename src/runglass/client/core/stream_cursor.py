"""The cursor of a stream that can be resumed: what it has had, and when a broken one is given up.

No I/O: a transport makes the request `call()`, feeds the bytes in and reports each loss. Across any number of
connections each thing comes out once, in order: of a live trace every event, with the terminal one last.
"""

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from types import NoneType
from typing import ClassVar, Generic, TypeVar

import msgspec

from runglass.client.core.requests import RequestSpec, is_count
from runglass.client.core.responses import PASSING, Answer, ConnectionLost, Outcome, backoff_s, error_of
from runglass.errors import APIConnectionError
from runglass.log.events import StreamEvent, decode_event, is_terminal
from runglass.log.trace import TERMINAL, RunSummary
from runglass.wire.run_api import RunChange, RunPage
from runglass.wire.sse import Decoder, Frame, FrameTooLarge

SILENCE_S = 45.0
"""A server pings every 15 s; a stream that has missed three pings is lost."""

# A proxy that compresses may hold back events until its window is full.
STREAM_HEADERS = {
    "Accept": "text/event-stream",
    "Accept-Encoding": "identity",
    "Cache-Control": "no-store",
}

_MOST_DIGITS = 18
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
        frames = read_frames(self._decoder, chunk, self)
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


def read_frames(decoder: Decoder, chunk: bytes, what: object) -> list[Frame]:
    """The frames that end in these bytes. Raises APIConnectionError for one that is too large."""
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
    return event, _number(frame.id) or 0


def _number(frame_id: str) -> int | None:
    # Python refuses to read thousands of digits.
    return int(frame_id) if frame_id.isdecimal() and len(frame_id) <= _MOST_DIGITS else None


def no_stream(what: str, answer: Answer) -> APIConnectionError:
    """The exception for a good answer that is no event stream."""
    kind = answer.headers.get("content-type", "no type")
    return APIConnectionError(
        f"{what} was answered with something else than an event stream ({kind}): "
        f"{answer.excerpt!r}; is the base URL right?"
    )


class _Gone(msgspec.Struct):
    id: str


class ListCursor(ResumingCursor[RunChange]):
    """Follows the list that `page` asks for, without an end.

    `after` is the number of a change, behind which it begins; None for now. A run that does not meet the
    query is told only to a reader who may list it: from this stream, or from the page before `after`.
    Raises ValueError for an `after` that is no number.
    """

    about = "live list"
    begins_at = -1

    def __init__(self, page: RequestSpec[RunPage], *, after: int | None, first_attempts: int) -> None:
        if after is not None and not is_count(after, 0):
            raise ValueError(
                f"after must be the number of a change or a page's last_change, not {after!r:.100}"
            )
        super().__init__(f"{page.path}/stream", query=page.query, first_attempts=first_attempts)
        self.last = self.begins_at if after is None else after
        self._has_page = after is not None
        self._listed: set[str] = set()

    def feed(self, chunk: bytes) -> Iterator[RunChange]:
        """The changes that end in these bytes. Raises APIConnectionError for bytes that cannot be read."""
        yield from super().feed(chunk)
        # A block without data says where the stream is, though there is nothing to tell.
        if (position := _number(self._decoder.last_event_id)) is not None:
            self.last = max(self.last, position)

    def _news(self, frames: Sequence[Frame]) -> Iterator[RunChange]:
        for frame in frames:
            if frame.event not in ("run", "gone"):
                continue
            change = self._change(frame)
            if change.number > self.last:
                self.last = change.number
                self._brought_news = True
                self._failures = 0
                if change.run is None and not self._has_page and change.run_id not in self._listed:
                    continue
                # Only a run that has not ended can leave the list again, so the set stays small.
                if change.run is None or change.run.status in TERMINAL:
                    self._listed.discard(change.run_id)
                else:
                    self._listed.add(change.run_id)
                yield change

    def _change(self, frame: Frame) -> RunChange:
        try:
            number = int(frame.id)
            if frame.event == "gone":
                return RunChange(number=number, run_id=msgspec.json.decode(frame.data, type=_Gone).id)
            run = msgspec.json.decode(frame.data, type=RunSummary)
        except (ValueError, msgspec.DecodeError) as error:
            raise APIConnectionError(
                f"{self}: change {frame.id or '(without id)'} is not readable ({error}): {frame.data[:100]!r}"
            ) from error
        return RunChange(number=number, run_id=run.id, run=run)
