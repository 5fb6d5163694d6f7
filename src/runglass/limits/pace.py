"""The pace of large work: one piece at a time, projects in turn, and with rests while several are about.

Large values are read, written or computed in pieces, each of which holds up all other work. With rests of
twice the time of a piece they take a third of the processor, and small work is rarely held up by more than
one piece.
"""

import asyncio
import math
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar
from typing import Literal, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from runglass.limits.shares import FairTurns, Shares
from runglass.support.clock import Clock, SystemClock

REST = 2.0
"""How many times as long as it has worked large work rests."""
LONGEST_REST_S = 1.0
SHORTEST_REST_S = 0.002
"""Less is saved up: a timer is no more exact than about that."""
LARGE_WRITE_BYTES = 32 * 1024
"""A hundred such writes in one commit would hold up all others for as many milliseconds."""
LARGE_READ_BYTES = 128 * 1024
"""Of so much, and no more, each read is over within a millisecond."""
LARGE_MOVE_BYTES = 32 * 1024
COPY_S = 1e-9
"""A byte's way from or to the system, in seconds."""
AT_ONCE, AT_ONCE_S = 16, 0.01
"""So many requests, iterations and branches of a project may begin within so many seconds."""
REQUEST_S, ITERATION_S = 0.001, 0.0006
"""Seconds of the event loop that a request, and the first step of an iteration or a branch, take."""
ABOUT_S = 2.0
"""So long after its last request, or the last event of its runs, a project counts as being about."""

MOST: dict[str, int] = {"reading": 3, "large answers": sys.maxsize}
"""How many projects may do a kind of work at a time, one unless it is here.

One less search the store, or read much of it, than threads read from it. A large answer that a provider holds
up keeps nobody else waiting.
"""

SWITCH_S, USUAL_SWITCH_S = 0.0005, sys.getswitchinterval()
"""How long a thread keeps the interpreter while others wait for it: while projects are about, and otherwise.

An answer needs the interpreter several times, in several threads, and each time may wait so long beside the
work of others. At all times it would cost a small answer a tenth more.
"""

Result = TypeVar("Result")
Kind: TypeAlias = Literal["thread", "loop", "writing", "reading", "answers", "large answers"]

clock: Clock = SystemClock()
"""What pieces and rests are measured by."""

current_project: ContextVar[int] = ContextVar("current_project", default=0)
"""The id of the project that a task works for; 0 for none."""

_reasons: set[str] = set()

last_seen = [(0, -math.inf), (0, -math.inf)]
"""The two projects that were active last, the last one first, each with the time."""


def set_project(project_id: int) -> None:
    """From now on this task works for the project, which is about."""
    # A task inherits it from who began it; set anew, it would take memory as long as the task lives.
    if current_project.get() != project_id:
        current_project.set(project_id)
    note_activity(project_id)


def note_activity(project_id: int) -> None:
    """The project is about: it asks for something, or a run of it goes on."""
    now_s, newest = clock.monotonic_s(), last_seen[0]
    if newest[0] != project_id:
        last_seen[1] = newest
    last_seen[0] = (project_id, now_s)
    # With each append: only the other entry can be of another project.
    other, seen_s = last_seen[1]
    is_other_about = seen_s > now_s - ABOUT_S and other != project_id
    if is_other_about != ("others" in _reasons):
        switch_often("others", is_other_about)


def switch_often(why: Literal["others", "large work"], holds: bool) -> None:
    """Lets threads switch often as long as one of the two reasons holds."""
    if holds == (why in _reasons):
        return
    if holds:
        _reasons.add(why)
    else:
        _reasons.discard(why)
    sys.setswitchinterval(SWITCH_S if _reasons else USUAL_SWITCH_S)


def others_are_active(project_id: int) -> bool:
    """Whether the project's large work would hold up another project."""
    since_s = clock.monotonic_s() - ABOUT_S
    return any(seen_s > since_s for other, seen_s in last_seen if other != project_id)


def rest_s(worked_s: float) -> float:
    """How long large work that took so long rests."""
    return min(REST * worked_s, LONGEST_REST_S)


class WorkPiece:
    """A piece of large work. Without `worked_s` it has worked from its start to its end."""

    __slots__ = ("worked_s",)

    def __init__(self) -> None:
        self.worked_s: float | None = None


def pace_of(kind: Kind) -> "Pacer":
    """The pace of large work in a thread, on the running loop, with the store, or on answers of providers."""
    loop = asyncio.get_running_loop()
    paces = _paces.get(loop)
    if paces is None:
        paces = _paces[loop] = {}
    if kind not in paces:
        paces[kind] = Pacer(most=MOST.get(kind, 1))
    return paces[kind]


def paced(kind: Kind, project_id: int) -> "AbstractAsyncContextManager[WorkPiece]":
    """The block is a piece of large work, which waits for its turn and its rest where others are about."""
    return pace_of(kind).piece(project_id) if others_are_active(project_id) else nullcontext(WorkPiece())


def paced_write(project_id: int, size_bytes: int) -> "AbstractAsyncContextManager[object]":
    """The block writes so much to the store, at a pace if it is much."""
    return paced("writing", project_id) if size_bytes > LARGE_WRITE_BYTES else nullcontext()


async def paced_read(
    project_id: int, read: Callable[[], Awaitable[Result]], *, size_bytes: float = math.inf
) -> Result:
    """The result of `read`, which searches the store or reads a page of much: one at a time of each project.

    `size_bytes` is the most that it can come upon: of little it reads at once. Else it waits also where
    no other project is about: what waits for a thread already is in the way of all who come. Who is cancelled
    while it waits for its turn reads nothing.
    """
    if size_bytes <= LARGE_READ_BYTES:
        return await read()
    async with pace_of("reading").piece(project_id):
        reading = asyncio.ensure_future(read())
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            # A thread reads on all the same, and the turn lasts as long as that.
            await asyncio.wait({reading})
            raise


async def admit_paced(project_id: int, takes_s: float) -> None:
    """Returns when it is the turn of one more beginning of the project, if there are many at once.

    `takes_s` is about how long its beginning keeps the loop busy: a few hundred at once would stop it for as
    many milliseconds.
    """
    project, now_s = pace_of("loop").projects[project_id], clock.monotonic_s()
    if now_s - project.begun_since_s > AT_ONCE_S:
        project.begun_since_s, project.begun = now_s, 0
    project.begun += 1
    if project.begun > AT_ONCE:
        async with paced("loop", project_id) as piece:
            piece.worked_s = takes_s


async def paced_transfer(size_bytes: int) -> None:
    """Returns when it is the task's turn to move so much from or to a caller, if it is much.

    Only the copying takes time of the event loop: how long the caller takes does not matter.
    """
    if size_bytes > LARGE_MOVE_BYTES:
        async with paced("loop", current_project.get()) as piece:
            piece.worked_s = size_bytes * COPY_S


_paces: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, "Pacer"]] = WeakKeyDictionary()


class PacedProject(asyncio.Lock):
    """One piece of a project's work at a time; it rests until `until_s`, by the monotonic clock.

    Since `begun_since_s`, `begun` of its requests, iterations and branches have begun at once.
    """

    until_s = 0.0
    begun_since_s = -math.inf
    begun = 0


class Pacer:
    """Of one kind of large work, on one event loop: a piece at a time, and each project rests for itself.

    Up to `most` projects may have a piece at a time, each of them one.
    """

    def __init__(self, *, most: int = 1) -> None:
        self._turns = FairTurns(Shares(1, most=most))
        # By id, what is noted of the project: callers make no projects, and each is a few hundred bytes.
        self.projects: defaultdict[int, PacedProject] = defaultdict(PacedProject)

    @asynccontextmanager
    async def piece(self, project_id: int) -> AsyncIterator[WorkPiece]:
        """The block is one piece of the project's work: it begins in its turn, after its rest."""
        project = self.projects[project_id]
        # Held while it rests, so that its next pieces wait behind this one, and no other project does.
        async with project:
            still_s = project.until_s - clock.monotonic_s()
            if still_s > SHORTEST_REST_S and others_are_active(project_id):
                await clock.sleep(still_s)
            async with self._turns.turn(project_id):
                piece, began_s = WorkPiece(), clock.monotonic_s()
                try:
                    yield piece
                finally:
                    now_s = clock.monotonic_s()
                    worked_s = now_s - began_s if piece.worked_s is None else piece.worked_s
                    until_s = max(now_s, project.until_s) + rest_s(worked_s)
                    # Alone it does not rest, and must not have to make up for all of that later.
                    project.until_s = min(until_s, now_s + LONGEST_REST_S)

    @property
    def is_wanted(self) -> bool:
        """Whether a task waits for the end of the piece that goes on; any thread may ask."""
        return self._turns.is_wanted
