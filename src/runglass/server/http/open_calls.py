"""Limits the open calls of a project: event streams, and calls that wait for a run.

Each costs a connection and some memory for as long as it is open. Counted in this process.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runglass.errors import RateLimitError


class OpenCalls:
    """Lets each project have `most_each` open calls."""

    def __init__(self, most_each: int) -> None:
        self._most_each = most_each
        self._open: dict[int, int] = {}

    @contextmanager
    def opened(self, project_id: int) -> Iterator[Callable[[], None]]:
        """Counts an open call until the block ends, or calls what it is given. Raises RATE_LIMITED."""
        already = self._open.get(project_id, 0)
        if already >= self._most_each:
            raise self._refusal()
        self._open[project_id] = already + 1
        is_counted = True

        def end() -> None:
            nonlocal is_counted
            if is_counted:
                is_counted = False
                self._open[project_id] -= 1
                if not self._open[project_id]:
                    del self._open[project_id]

        try:
            yield end
        finally:
            end()

    def _refusal(self) -> RateLimitError:
        message = (
            f"{self._most_each:,} streams and blocking calls of this project are open, as many as the setting"
            " `max_streams_per_project` allows; nothing was started, close some or try again later"
        )
        error = RateLimitError(message, code="RATE_LIMITED", status=429)
        error.details = {"limit": "max_streams_per_project", "value": self._most_each}
        error.retry_after_s = 1.0
        return error
