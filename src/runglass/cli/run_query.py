"""Which runs a command is to delete: a time as it is typed, and the runs that a query finds."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from runglass.cli.exits import UsageError
from runglass.cli.words import moment
from runglass.trace import TERMINAL, RunStatus, RunSummary

if TYPE_CHECKING:
    from runglass.client import Client

MOST_PER_PAGE = 100
_AGE = re.compile(r"([0-9]{1,6})\s*([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Found(NamedTuple):
    """A run, and when it ended, or else began."""

    id: str
    at: str | None


def time_limit(before: str | None, older_than: str | None) -> datetime | None:
    """The time that runs must be older than, of two ways to say it. Raises UsageError."""
    if before is not None and older_than is not None:
        raise UsageError("--before and --older-than both say how old the runs are: give one of them")
    if before is not None:
        try:
            # Without a zone, as people write it, it is the time of this machine.
            return datetime.fromisoformat(before).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise UsageError(
                f"--before {before!r} is no time: write 2026-01-31, or 2026-01-31T12:00:00Z"
            ) from error
    if older_than is None:
        return None
    age = _AGE.fullmatch(older_than)
    if age is None:
        raise UsageError(f"--older-than {older_than!r} is no age: write 30d, or 90m, 12h, 2w")
    try:
        return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def find_runs(
    client: "Client", *, flow_id: str | None, status: RunStatus | None, before: datetime | None
) -> Iterator[Found]:
    """The runs of the query, newest first. Without a status, only those that have ended."""
    cursor: str | None = None
    while True:
        page = client.runs(flow_id=flow_id, status=status, limit=MOST_PER_PAGE, cursor=cursor)
        for run in page.runs:
            if (status is not None or run.status in TERMINAL) and _is_before(run, before):
                yield Found(run.id, run.completed_at or run.started_at)
        cursor = page.next_cursor
        if cursor is None:
            return


def _is_before(run: RunSummary, limit: datetime | None) -> bool:
    at = moment(run.completed_at or run.started_at)
    return limit is None or (at is not None and at < limit)
