"""The answer to one call of a step-through, a stream of events: what has come, and whether to ask once more.

No I/O. Unlike a live trace it begins where the call begins, ends with the step, and is asked for by a POST.
"""

import math
from collections.abc import Iterator

from runglass.client.core.requests import RequestSpec
from runglass.client.core.responses import ENDED_EARLY, ConnectionLost, Outcome, finish
from runglass.client.core.retries import Retries
from runglass.client.core.stream_cursor import no_stream, read_frame
from runglass.errors import APIConnectionError
from runglass.events import (
    FlowCancelled,
    FlowCompleted,
    FlowFailed,
    StepError,
    StepPaused,
    StepPausedForToolCalls,
    StreamEvent,
)
from runglass.sse import Decoder, FrameTooLarge

ENDS = (StepPaused, StepPausedForToolCalls, FlowCompleted, FlowFailed, FlowCancelled)
"""The events that nothing follows in the answer to a call."""


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
        """Asks for the events; again under the same key, so that the step is not run twice."""
        return self._call

    def opened(self) -> None:
        """A connection stands; what follows through `feed` is a new stream."""
        self._decoder = Decoder()
        self._place = (0, 0)

    def feed(self, chunk: bytes) -> Iterator[StreamEvent]:
        """The new events that end in these bytes. Raises APIConnectionError for what is unreadable."""
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
        """Whether no connection has brought the event yet.

        One without a number, which is none of the run's log, is known by how far behind a numbered one it is.
        """
        number, beside = self._place
        if seq > number:
            self._place = (seq, 0)
        elif event.seq == 0:
            # Its frame says no number of its own, so that what was read as one is of a frame before it.
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
            # A lost step ends the answer as well, unless the flow goes on in spite of it.
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
