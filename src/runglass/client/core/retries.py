"""How long a call may take, whether it is tried again, and after how long. Pure: transports do the waiting.

Timeouts of HTTP libraries bound one socket operation each, so a server that drips a byte at a time stretches
a call without end. A deadline is asked before every wait instead.

A read may be tried again after any loss, and so may a call that starts or resumes a run: all its attempts
carry one Idempotency-Key, under which the server does it once and repeats the response. Any other call is
tried again only where the server cannot have done it: no connection was made, or the server itself said so
(429, 503).
"""

import math
import random
import time
from collections.abc import Callable
from typing import Any

from runglass.client.core.requests import RequestSpec
from runglass.client.core.responses import Answer, ConnectionLost, Outcome

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


_WAKES_EARLY_S = 0.005


class Deadline:
    """Ends `seconds` from now, or from the latest `renew()`, and never later than `within`.

    Infinite seconds never end.
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
