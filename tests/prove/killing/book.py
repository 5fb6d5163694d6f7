"""What callers asked for and what they were told: the other side of every promise.

Written by the callers as the answers come, read by the laws after each kill.
"""

from typing import Any

import msgspec

PLACE = "acme/demo"


class Asked(msgspec.Struct, kw_only=True):
    """One run that a caller asked for. `tag` is its session id too, so that it is found without an answer.

    `run_id` is set once the caller was told of it, `answer` once it has the last answer. `is_left` runs may
    stay paused: their caller went away on purpose, or without knowing that there is a run.
    """

    tag: str
    flow: str
    n: int
    trigger: str
    run_id: str | None = None
    answer: dict[str, Any] | None = None
    status: int | None = None
    is_left: bool = False
    was_cancelled: bool = False
    may_be_cancelled: bool = False


class Book:
    """All that callers know of one folder of data.

    `told` has each event that a tail was sent, by run and seq; `walked` those of step-through calls, in which
    the outputs may stand in full. `ended_at` are the runs whose stream said that nothing follows. `refused`
    are calls, by tag, that were told that nothing was started, with the run that there was before. `lies` are
    what a caller alone could see. A program `of_before` leaves out of its answers what it does not know.
    """

    def __init__(self, *, of_before: bool = False) -> None:
        self.of_before = of_before
        self.asked: dict[str, Asked] = {}
        self.told: dict[str, dict[int, bytes]] = {}
        self.walked: dict[str, dict[int, bytes]] = {}
        self.ended_at: list[tuple[str, int]] = []
        self.refused: set[tuple[str, str | None]] = set()
        self.lies: list[str] = []
        self.events = 0
        self.resumes = 0
        self.repeats = 0

    def open(self, asked: Asked) -> Asked:
        self.asked[asked.tag] = asked
        return asked

    def tell(self, run_id: str, seq: int, data: bytes) -> None:
        """Notes an event from a tail. A seq that was told before must be the same event."""
        self.events += 1
        before = self.told.setdefault(run_id, {}).setdefault(seq, data)
        if before != data:
            self.lies.append(f"a reader was told two events {seq} of run {run_id}: {before!r} and {data!r}")

    def walk(self, run_id: str, seq: int, data: bytes) -> None:
        self.events += 1
        self.walked.setdefault(run_id, {}).setdefault(seq, data)

    def known_runs(self) -> list[str]:
        return [asked.run_id for asked in self.asked.values() if asked.run_id is not None]
