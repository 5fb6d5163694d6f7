"""Through which hands a run has gone: each append must be by the process that had the run at that moment."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from tests.postgres_server import connected

APART = timedelta(seconds=1)
"""How far the time of an event may be from what it is by the clock of the database."""
UNKNOWN = datetime(1, 1, 2, tzinfo=UTC)


class Hand(NamedTuple):
    """A change of a run's row: by `who` it was made, and what `fence` and `head` are since then.

    `was_lost` says that another process had the run, and has it no more; `at` is when the change was made,
    by the clock of the database.
    """

    run_no: int
    fence: int
    head: int
    who: str
    was_lost: bool = False
    at: datetime = UNKNOWN


_HANDS = "SELECT run_no, fence, head, who, was_lost, at FROM prove.hand ORDER BY no"


async def hands_of(address: str) -> list[Hand]:
    """Every change of the rows of runs, in the order in which they were made."""
    async with connected(address) as connection:
        return [Hand._make(row) for row in await connection.fetch(_HANDS)]


def zombies(hands: Iterable[Hand]) -> Iterator[str]:
    """Appends by a process that had lost the run to another one, of changes in the order they were made."""
    last: dict[int, Hand] = {}
    holder: dict[int, str] = {}
    for hand in hands:
        before = last.get(hand.run_no)
        if before is None or hand.fence > before.fence:
            holder[hand.run_no] = hand.who
        elif hand.fence < before.fence:
            yield f"run {hand.run_no}: {hand.who} set the fence back from {before.fence} to {hand.fence}"
        if before is not None and hand.head < before.head:
            yield f"run {hand.run_no}: {hand.who} set the head back from {before.head} to {hand.head}"
        if hand.who != holder[hand.run_no]:
            yield (
                f"a zombie: run {hand.run_no} belongs to {holder[hand.run_no]} since fence {hand.fence},"
                f" and {hand.who} wrote its event {hand.head}"
            )
        last[hand.run_no] = hand


def misdated(hands: Iterable[Hand], dates: Mapping[int, Sequence[datetime]]) -> Iterator[str]:
    """Events that were not made between the moment at which their process got the run and their append.

    The moments are of the clock of the database, and `dates` those that the events of each run say.
    """
    last: dict[int, Hand] = {}
    got: dict[int, Hand] = {}
    for hand in hands:
        before = last.get(hand.run_no)
        if before is None or hand.fence != before.fence:
            got[hand.run_no] = hand
        since = got[hand.run_no]
        for seq in range(before.head + 1 if before else 1, hand.head + 1):
            at = dates[hand.run_no][seq - 1]
            if not since.at - APART <= at <= hand.at + APART:
                yield (
                    f"run {hand.run_no}: {hand.who} got it at {since.at}, appended event {seq} at {hand.at},"
                    f" and dated it {at}"
                )
        last[hand.run_no] = hand
