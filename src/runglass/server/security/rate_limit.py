"""How often a key, and a project with all of its keys, may ask: token buckets in this process's memory.

A bucket holds a minute's worth of requests and fills up evenly. It is kept as one number, the moment at which
it will be full again; a full bucket is the same as none, so the memory is bounded by those who asked in the
last minute.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from runglass.errors import RateLimitError
from runglass.store.records import ApiKey

MINUTE_S = 60.0


class Rate:
    """Lets each one ask `per_minute` times a minute. `clock` gives seconds that never go back."""

    who: ClassVar[str]
    setting: ClassVar[str]

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._full_at_s: OrderedDict[int, float] = OrderedDict()

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._full_at_s)

    def take(self, one: int) -> None:
        """Counts a request of that one. Raises RATE_LIMITED, which counts nothing, with the time to wait."""
        now_s = self._clock()
        self._forget_full(now_s)
        full_at_s = max(self._full_at_s.get(one, now_s), now_s) + MINUTE_S / self._per_minute
        # The sum of many intervals is off by a few rounding errors; they must not cost a request.
        wait_s = full_at_s - now_s - MINUTE_S
        if wait_s > 1e-6:
            raise self._refusal(wait_s)
        self._full_at_s[one] = full_at_s
        self._full_at_s.move_to_end(one)

    def give_back(self, one: int) -> None:
        """Takes back what `take` has just counted."""
        self._full_at_s[one] -= MINUTE_S / self._per_minute

    def _forget_full(self, now_s: float) -> None:
        while self._full_at_s:
            one, full_at_s = next(iter(self._full_at_s.items()))
            if full_at_s > now_s:
                return
            del self._full_at_s[one]

    def _refusal(self, wait_s: float) -> RateLimitError:
        message = (
            f"{self.who} may ask {self._per_minute:,} times a minute; wait as `Retry-After` says, or raise"
            f" the server's setting `{self.setting}`"
        )
        error = RateLimitError(message, code="RATE_LIMITED", status=429)
        error.retry_after_s = wait_s
        return error


class KeyRate(Rate):
    """Lets each key ask so often."""

    who = "this key"
    setting = "rate_limit_per_minute"


class ProjectRate(Rate):
    """Lets all keys of a project together ask so often: one more key is not one more minute's worth."""

    who = "this project, with all of its keys,"
    setting = "project_rate_limit_per_minute"


class Rates(NamedTuple):
    """The limits in force; None where there is none."""

    of_key: KeyRate | None = None
    of_project: ProjectRate | None = None

    def take(self, key: ApiKey) -> None:
        """Counts a request, for the project first. Raises RATE_LIMITED, and then nothing is counted.

        So a key that is over its own limit takes nothing from the others of its project.
        """
        if self.of_project is not None:
            self.of_project.take(key.project_id)
        if self.of_key is not None:
            try:
                self.of_key.take(key.id)
            except RateLimitError:
                if self.of_project is not None:
                    self.of_project.give_back(key.project_id)
                raise


UNLIMITED = Rates()
