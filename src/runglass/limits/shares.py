"""Fair shares: how much one project may hold, and which project is next.

Slots of runs, worker processes, calls and bytes are given out here, so that the flood of one project costs
the others little. Knows none of these: ids of projects in, turns out.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Self


class _Account:
    """What a project holds, and its use so far in units of its weight."""

    __slots__ = ("held", "used", "weight")

    def __init__(self, weight: float) -> None:
        self.held = 0
        self.used = 0.0
        self.weight = weight


class Shares:
    """Slots, or bytes, of projects: that with the least use by its weight is next (start-time fair queueing).

    One project may hold `most_each`. All `slots` may be held by one that is alone; a project below its equal
    share (`slots` by the number of those that hold some) gets a slot all the same, up to `most` slots
    altogether. So no project need wait until others give slots back, and no slot lies idle while one is
    wanted. A `size` is how many slots are taken at once.
    """

    def __init__(
        self,
        slots: float,
        *,
        most: float = math.inf,
        most_each: float = math.inf,
        weights: Mapping[int, float] | None = None,
    ) -> None:
        self.held = 0
        self._slots = slots
        self._most = most
        self._most_each = most_each
        self._weights = weights or {}
        self._accounts: dict[int, _Account] = {}
        self._holding_weight = 0.0
        # The use of the project that was served last: one that comes anew has no credit from before.
        self._floor = 0.0

    @property
    def free(self) -> int:
        """Places that no project holds."""
        return int(max(0, self._slots - self.held))

    def held_by(self, project_id: int) -> int:
        """How many slots the project holds."""
        account = self._accounts.get(project_id)
        return 0 if account is None else account.held

    def may_take(self, project_id: int, size: int = 1) -> bool:
        """Whether there is a slot for the project, be it that it stands above the number of slots."""
        account = self._accounts.get(project_id)
        held = 0 if account is None else account.held
        if held + size > self._most_each:
            return False
        if self.held + size <= self._slots:
            return True
        if self.held + size > self._most:
            return False
        weight = self._weights.get(project_id, 1.0)
        sharing = self._holding_weight + (0.0 if held else weight)
        return held + size <= math.ceil(self._slots * weight / sharing)

    def next(self, waiting: Iterable[int], sizes: Mapping[int, int] | None = None) -> int | None:
        """The next of the projects that wait, each for a slot or its size; None if there is room for none.

        Of several that have used as much it is the first. Room is kept for a large size of one that holds
        nothing, which small ones of others would else take from it for ever.
        """
        for each in sorted(waiting, key=self._used):
            if self.may_take(each, 1 if sizes is None else sizes[each]):
                return each
            if not self.held_by(each):
                break
        return None

    def take(self, project_id: int, size: int = 1) -> None:
        """Gives a slot to the project."""
        account = self._accounts.get(project_id)
        if account is None:
            weight = self._weights.get(project_id, 1.0)
            account = self._accounts[project_id] = _Account(weight)
        if not account.held:
            self._holding_weight += account.weight
        self._floor = account.used = max(account.used, self._floor)
        account.held += size
        self.held += size

    def charge(self, project_id: int, used: float) -> None:
        """Charges the project, which holds a slot, for its use."""
        account = self._accounts[project_id]
        account.used += used / account.weight

    def give_back(self, project_id: int, *, size: int = 1, used: float = 0.0) -> None:
        """Takes a slot back from the project, and charges what it has used since it was charged."""
        account = self._accounts[project_id]
        account.used += used / account.weight
        account.held -= size
        self.held -= size
        if not account.held:
            self._holding_weight -= account.weight

    @contextmanager
    def taken(self, project_id: int) -> Iterator[Callable[[], None]]:
        """Takes a slot until the block ends, or calls what it is given."""
        with ExitStack() as end:
            self.take(project_id)
            end.callback(self.give_back, project_id)
            yield end.close

    def reset(self) -> None:
        """Forgets all use; for a moment in which no project holds a slot or waits."""
        # A project that is alone competes with none, and its account would be made anew for each turn.
        if len(self._accounts) > 1:
            self._accounts.clear()
            self._holding_weight = self._floor = 0.0

    def _used(self, project_id: int) -> float:
        account = self._accounts.get(project_id)
        return self._floor if account is None else max(account.used, self._floor)


class FairTurns:
    """Turns at the slots of `shares`, charged by the time that they take.

    A project's own turns come in the order in which they were asked for.
    """

    def __init__(self, shares: Shares, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._shares = shares
        self._clock = clock
        self._going: set[Turn] = set()
        self._waiting: dict[int, deque[Turn]] = {}

    @property
    def is_wanted(self) -> bool:
        """Whether a task waits; any thread may ask."""
        return bool(self._waiting)

    def turn(self, project_id: int, size: int = 1) -> "Turn":
        """A block to be entered with `async with`, which waits until it is the project's turn."""
        return Turn(self, project_id, size)

    async def begin(self, turn: "Turn") -> None:
        """Returns when the turn has come."""
        project_id, shares = turn.project_id, self._shares
        if not self._waiting and shares.may_take(project_id, turn.size):
            shares.take(project_id, turn.size)
        else:
            granted = turn.granted = asyncio.get_running_loop().create_future()
            line = self._waiting.setdefault(project_id, deque())
            line.append(turn)
            if len(line) == 1:
                self._hand_out()
            try:
                await granted
            except asyncio.CancelledError:
                if granted.done() and not granted.cancelled():
                    shares.give_back(project_id, size=turn.size)
                self._hand_out()
                raise
        turn.charged_to = self._clock()
        self._going.add(turn)

    def end(self, turn: "Turn") -> None:
        """Gives the slots of the turn to whoever is next."""
        self._going.discard(turn)
        self._shares.give_back(turn.project_id, size=turn.size, used=self._clock() - turn.charged_to)
        if self._waiting:
            self._hand_out()
        elif not self._shares.held:
            self._shares.reset()

    def _hand_out(self) -> None:
        if len(self._waiting) > 1:
            # To choose between them, the use of turns that still go on counts, too.
            now = self._clock()
            for turn in self._going:
                self._shares.charge(turn.project_id, now - turn.charged_to)
                turn.charged_to = now
        while True:
            for project_id, line in list(self._waiting.items()):
                while line and (line[0].granted is None or line[0].granted.done()):
                    line.popleft()
                if not line:
                    del self._waiting[project_id]
            sizes = {project_id: line[0].size for project_id, line in self._waiting.items()}
            if (project := self._shares.next(sizes, sizes)) is None:
                return
            turn = self._waiting[project].popleft()
            assert turn.granted is not None
            self._shares.take(project, turn.size)
            turn.granted.set_result(None)


class Turn:
    """One turn of a project at `size` slots; `charged_to` is the moment up to which its time is charged."""

    __slots__ = ("_turns", "charged_to", "granted", "project_id", "size")

    def __init__(self, turns: FairTurns, project_id: int, size: int) -> None:
        self._turns = turns
        self.project_id = project_id
        self.size = size
        self.charged_to = 0.0
        self.granted: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        await self._turns.begin(self)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._turns.end(self)
