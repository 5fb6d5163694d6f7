"""How often one key may ask: a token bucket per key, in this process's memory.

A bucket holds a minute's worth of requests and fills up evenly. It is kept as one number, the moment at which
it will be full again; a full bucket is the same as none, so the memory is bounded by the keys of a minute.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from runglass.errors import RateLimitError

MINUTE_S = 60.0


class KeyRate:
    """Lets each key ask `per_minute` times a minute. `clock` gives seconds that never go back."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._full_at_s: OrderedDict[int, float] = OrderedDict()

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._full_at_s)

    def take(self, key_id: int) -> None:
        """Counts a request of the key. Raises RATE_LIMITED, which counts nothing, with the time to wait."""
        now_s = self._clock()
        self._forget_full(now_s)
        full_at_s = max(self._full_at_s.get(key_id, now_s), now_s) + MINUTE_S / self._per_minute
        # The sum of many intervals is off by a few rounding errors; they must not cost a request.
        wait_s = full_at_s - now_s - MINUTE_S
        if wait_s > 1e-6:
            raise self._refusal(wait_s)
        self._full_at_s[key_id] = full_at_s
        self._full_at_s.move_to_end(key_id)

    def _forget_full(self, now_s: float) -> None:
        while self._full_at_s:
            key_id, full_at_s = next(iter(self._full_at_s.items()))
            if full_at_s > now_s:
                return
            del self._full_at_s[key_id]

    def _refusal(self, wait_s: float) -> RateLimitError:
        message = f"this key may ask {self._per_minute:,} times a minute; wait as `Retry-After` says"
        error = RateLimitError(message, code="RATE_LIMITED", status=429)
        error.retry_after_s = wait_s
        return error
