"""Limits the requests per minute of a key, and of a project: token buckets in this process's memory.

A bucket holds a minute's worth of requests and fills up evenly. It is kept as one number, the moment at which
it will be full again. A full bucket is not kept, so the memory is limited by the keys and projects of the
last minute.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from runglass.errors import rate_limited

MINUTE_S = 60.0


class Rate:
    """Lets each `one` ask `per_minute` times a minute; `subject` and `setting` are for the refusal."""

    def __init__(self, per_minute: int, *, subject: str, setting: str) -> None:
        self._per_minute = per_minute
        self._subject = subject
        self._setting = setting
        self._full_at_s: OrderedDict[int, float] = OrderedDict()

    def __len__(self) -> int:
        """How many buckets are kept."""
        return len(self._full_at_s)

    def full_at_s(self, one: int, now_s: float) -> float:
        """When the bucket will be full again after a further request. Raises RATE_LIMITED."""
        full_at_s = max(self._full_at_s.get(one, now_s), now_s) + MINUTE_S / self._per_minute
        # The sum of many intervals has rounding errors, which must not cost a request.
        wait_s = full_at_s - now_s - MINUTE_S
        if wait_s > 1e-6:
            raise rate_limited(
                f"{self._subject} may ask {self._per_minute:,} times a minute; wait as `Retry-After` says,"
                f" or raise the server's setting `{self._setting}`",
                retry_after_s=wait_s,
            )
        return full_at_s

    def count(self, one: int, full_at_s: float, now_s: float) -> None:
        self._full_at_s[one] = full_at_s
        self._full_at_s.move_to_end(one)
        # The oldest come first.
        while next(iter(self._full_at_s.values())) <= now_s:
            self._full_at_s.popitem(last=False)


class Rates:
    """The rates of each key, and of all keys of a project together, so that more keys do not raise it.

    None is no limit. `clock` gives seconds that never go back.
    """

    def __init__(
        self,
        *,
        per_key: int | None = None,
        per_project: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        key = {"subject": "this key", "setting": "rate_limit_per_minute"}
        project = {
            "subject": "this project, with all of its keys,",
            "setting": "project_rate_limit_per_minute",
        }
        self.of_key = None if per_key is None else Rate(per_key, **key)
        self.of_project = None if per_project is None else Rate(per_project, **project)
        self._clock = clock

    def take(self, *, key_id: int, project_id: int) -> None:
        """Counts a request. Raises RATE_LIMITED with the time to wait, and then counts nothing.

        So a key over its own limit takes nothing from the other keys of its project.
        """
        now_s = self._clock()
        asked = (self.of_project, project_id), (self.of_key, key_id)
        allowed = [(rate, one, rate.full_at_s(one, now_s)) for rate, one in asked if rate is not None]
        for rate, one, full_at_s in allowed:
            rate.count(one, full_at_s, now_s)
