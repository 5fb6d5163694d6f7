"""The event stream that answers one call of a step-through: its events so far, and whether to retry.

No I/O. Unlike a live trace the stream begins with the call, ends with the step, and is requested by a POST.
"""

import math
from collections.abc import Iterator

from runglass.client.core.requests import RequestSpec
from runglass.client.core.responses import ENDED_EARLY, ConnectionLost, Outcome, finish
from runglass.client.core.retries import Retries
from runglass.client.core.stream_cursor import no_stream, read_frame
from runglass.errors import APIConnectionError
from runglass.log.events import (
    FlowCancelled,
    FlowCompleted,
    FlowFailed,
    StepError,
    StepPaused,
    StepPausedForToolCalls,
    StreamEvent,
)
from runglass.wire.sse import Decoder, FrameTooLarge

ENDS = (StepPaused, StepPausedForToolCalls, FlowCompleted, FlowFailed, FlowCancelled)
"""The events with which the answer to a call ends."""


class StepStream:
    """Follows the answer to `call` over any number of attempts; each event comes once."""

    def __init__(self, call: RequestSpec[None], max_retries: int) -> None:
        self.ended = False
        self.gap: ConnectionLost | None = None
        self._call = call
        self._retries = Retries(call, max_retries)
        self._decoder = Decoder()
        self._place = (0, 0)
        self._farthest = (0, 0)
        self._last: StreamEvent | None = None

    def call(self) -> RequestSpec[None]:
        """The request for the events; each attempt has the same key, so that the step is not run twice."""
        return self._call

    def opened(self) -> None:
        """Begins a new stream, as a connection has been made."""
        self._decoder = Decoder()
        self._place = (0, 0)

    def feed(self, chunk: bytes) -> Iterator[StreamEvent]:
        """The new events that end in these bytes. Raises APIConnectionError for bytes that cannot be read."""
        try:
            frames = self._decoder.feed(chunk)
        except FrameTooLarge as error:
            raise APIConnectionError(f"{self}: {error}") from error
        for frame in frames:
            event, seq = read_frame(frame, self)
            if self._last is not None and event.execution_id != self._last.execution_id:
                raise APIConnectionError(
                    f"{self}: its answer broke off in run {self._last.execution_id!r} and began anew in run "
                    f"{event.execution_id!r}: the server does not honour Idempotency-Keys here"
                )
            if self._is_new(event, seq):
                self._last = event
                yield event

    def _is_new(self, event: StreamEvent, seq: int) -> bool:
        """Whether the event has not come on an earlier connection.

        An event without a number, which is none of the run's log, is known by its distance from the last
        numbered one.
        """
        number, beside = self._place
        if seq > number:
            self._place = (seq, 0)
        elif event.seq == 0:
            # The frame has no number of its own, so the decoder has given it the number of an earlier frame.
            self._place = (number, beside + 1)
        else:
            return False
        is_new = self._place > self._farthest
        self._farthest = max(self._farthest, self._place)
        return is_new

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
