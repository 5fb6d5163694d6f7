"""A moment after which a call may not wait any longer.

Timeouts of HTTP libraries bound one socket operation each, so a server that drips a byte at a time stretches
a call without end. A deadline is asked before every wait instead.
"""

import math
import time
from collections.abc import Callable

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
