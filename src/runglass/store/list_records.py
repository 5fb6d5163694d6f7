"""What every store hands out where it is asked for runs by a query."""

from collections.abc import Sequence
from typing import NamedTuple


class RunListing(NamedTuple):
    """A run in a list: some columns of its row, and its `flowRun` JSON."""

    id: str
    flow_id: str
    status: str
    trigger_type: str
    summary: bytes
    flow_slug: str | None
    version: int
    session_id: str | None
    ended_at: str | None
    duration_ms: int | None


LISTING = (
    "SELECT id, flow_id, status, trigger_type, summary, (SELECT slug FROM flow WHERE flow.id = flow_id),"
    " version, session_id, ended_at, duration_ms FROM run"
)
"""The columns of a `RunListing`, in each database."""


class ListPosition(NamedTuple):
    """How far a list of runs has come: down to run `run_id`, and in its log to event `seq`, if not below it.

    `met` are the texts of the query that were met in that log so far, as bits.
    """

    run_id: str
    seq: int = 0
    met: int = 0


class FoundRuns(NamedTuple):
    """Runs of a query, newest first. `position` is where the next page begins, None where there is none.

    A page may have fewer runs than were asked for, even none, and a position all the same: so far the store
    has looked. `last_change` is the number of the project's newest change that the page has seen.
    """

    runs: list[RunListing]
    position: ListPosition | None
    last_change: int


class ChangedRun(NamedTuple):
    """A run that was created, or whose status has changed, by the number of its newest change.

    `listing` is None where the run does not meet the query; `could_meet` says whether it may have met it
    before, by what never changes of it.
    """

    number: int
    run_id: str
    listing: RunListing | None
    could_meet: bool


class Intervals(NamedTuple):
    """So many intervals of one length that follow each other."""

    from_ms: int
    length_ms: int
    number: int

    @classmethod
    def over(cls, since_ms: int, until_ms: int, *, most: int, lengths_ms: Sequence[int]) -> "Intervals":
        """Intervals that cover the time: `most` of them, or, where one of the lengths is long enough, as few
        as that one takes, which begin at its multiples.
        """
        for length_ms in lengths_ms:
            from_ms = since_ms // length_ms * length_ms
            number = max(1, -(-(until_ms - from_ms) // length_ms))
            if number <= most:
                return cls(from_ms, length_ms, number)
        return cls(since_ms, max(1, -(-(until_ms - since_ms) // most)), most)


class RunCounts(NamedTuple):
    """How many runs were created, and of these how many have failed, in intervals of `bucket_ms` each.

    Where there are too many to count, older ones than `counted_from_ms` are not in it.
    """

    from_ms: int
    bucket_ms: int
    runs: list[int]
    failed: list[int]
    counted_from_ms: int | None = None
