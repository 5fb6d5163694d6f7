"""The runs that a query finds, for a command that deletes them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from runglass.cli.exit_codes import UsageError
from runglass.cli.terminal.formatting import moment
from runglass.log.trace import TERMINAL, RunStatus, RunSummary

if TYPE_CHECKING:
    from runglass.client import Client

MOST_PER_PAGE = 100


class Found(NamedTuple):
    """A run, and when it ended, or else began."""

    id: str
    at: str | None


def time_limit(before: datetime | None, older_than: datetime | None) -> datetime | None:
    """The time before which runs must have ended, by one of two options. Raises UsageError for both."""
    if before is not None and older_than is not None:
        raise UsageError("--before and --older-than both say how old the runs are: give one of them")
    limit = older_than if before is None else before
    return None if limit is None else limit.astimezone(UTC)


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
