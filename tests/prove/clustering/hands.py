"""Through which hands a run has gone: each append must be by the process that had the run at that moment."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Hand(NamedTuple):
    """A change of a run's row: by `who` it was made, and what `fence` and `head` are since then.

    `was_lost` says that another process had the run, and has it no more.
    """

    run_no: int
    fence: int
    head: int
    who: str
    was_lost: bool = False


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
