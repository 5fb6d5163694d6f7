"""Limits the requests per minute of a key, and of a project: token buckets in this process's memory.

A bucket holds a minute's worth of requests and fills up evenly. It is kept as one number, the moment at which
it will be full again. A full bucket is not kept, so the memory is limited by the keys and projects of the
last minute.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from runglass.errors import RateLimitError
from runglass.server.http.error_responses import rate_limited
from runglass.store.records import ApiKey

MINUTE_S = 60.0


class Rate:
    """Lets each key or project ask `per_minute` times a minute. `clock` gives seconds that never go back."""

    subject: ClassVar[str]
    setting: ClassVar[str]

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._full_at_s: OrderedDict[int, float] = OrderedDict()

    def __len__(self) -> int:
        """How many buckets are kept."""
        return len(self._full_at_s)

    def take(self, one: int) -> None:
        """Counts a request. Raises RATE_LIMITED with the time to wait, and then counts nothing."""
        now_s = self._clock()
        # The oldest come first.
        while self._full_at_s and next(iter(self._full_at_s.values())) <= now_s:
            self._full_at_s.popitem(last=False)
        full_at_s = max(self._full_at_s.get(one, now_s), now_s) + MINUTE_S / self._per_minute
        # The sum of many intervals has rounding errors, which must not cost a request.
        wait_s = full_at_s - now_s - MINUTE_S
        if wait_s > 1e-6:
            raise rate_limited(
                f"{self.subject} may ask {self._per_minute:,} times a minute; wait as `Retry-After` says,"
                f" or raise the server's setting `{self.setting}`",
                retry_after_s=wait_s,
            )
        self._full_at_s[one] = full_at_s
        self._full_at_s.move_to_end(one)

    def give_back(self, one: int) -> None:
        """Undoes the last `take`."""
        self._full_at_s[one] -= MINUTE_S / self._per_minute


class KeyRate(Rate):
    """The rate of each key."""

    subject = "this key"
    setting = "rate_limit_per_minute"


class ProjectRate(Rate):
    """The rate of all keys of a project together, so that more keys do not raise it."""

    subject = "this project, with all of its keys,"
    setting = "project_rate_limit_per_minute"


class Rates(NamedTuple):
    """The rates in force; None for no limit."""

    of_key: KeyRate | None = None
    of_project: ProjectRate | None = None

    def take(self, key: ApiKey) -> None:
        """Counts a request, for the project first. Raises RATE_LIMITED, and then counts nothing.

        So a key over its own limit takes nothing from the other keys of its project.
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
