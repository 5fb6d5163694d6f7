"""Appends of many runs, written together: one statement for all that wait.

Most of what a statement costs it costs once, with a sync of the disk behind it. So the next one waits for the
one before and takes all that came meanwhile. A few go at a time where that is worth it: with many runs, or
beside one that takes long. Each append is refused or written by itself, whatever becomes of those beside it.
A statement whose answer is lost is sent again: the database tells by the id of each batch what it has
already written.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from runglass.errors import CommitUncertain
from runglass.store.postgres.append_rows import tables_of
from runglass.store.postgres.connections import ConnectionLost, Connections, GaveWay
from runglass.store.postgres.sql_helpers import NOW
from runglass.store.records import LARGE_RUN_EVENTS, Append
from runglass.store.statements import as_int

Item = TypeVar("Item")
Answer = TypeVar("Answer")

WRITERS = 3
"""Most statements on their way at once."""
WORTH_RUNS = 64
"""So many runs that wait are worth a statement beside the one that is on its way."""
LONG_S = 0.02
"""A statement that takes longer is waited for no more."""
MOST_RUNS = 256
MOST_BYTES = 4 << 20
"""One statement has no more: it bounds how long the first append in it waits."""

_APPEND = f"SELECT append_rows({NOW}, $1, $2, $3, $4, $5, $6, $7, $8)"


class Waiting(NamedTuple, Generic[Item, Answer]):
    """What is to be written together with others, and where the answer goes."""

    item: Item
    answer: "asyncio.Future[Answer]"


async def write_together(
    waiting: Sequence[Waiting[Item, Answer]],
    write: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Exception]]],
) -> None:
    """Answers each with what `write` returns for it: all at once, or alone where one cannot be stored."""
    answers: Sequence[Answer | Exception]
    try:
        answers = await write([each.item for each in waiting])
    # Any error belongs to those that it is about: others wait for this task, and it must go on.
    except Exception as error:  # noqa: BLE001
        if len(waiting) > 1 and not isinstance(error, (CommitUncertain, ConnectionLost, GaveWay)):
            for each in waiting:
                await write_together([each], write)
            return
        answers = [error] * len(waiting)
    for each, answer in zip(waiting, answers, strict=True):
        if each.answer.done():
            continue
        if isinstance(answer, Exception):
            each.answer.set_exception(answer)
        else:
            each.answer.set_result(answer)


class _Sent(NamedTuple):
    """A batch, with an id of this one append of it."""

    id: bytes
    batch: Append


class AppendQueue:
    """The appends of this process. Those of one run are written one after the other.

    `patience_s`: how long they wait for a database that is away, though other calls wait no more. What goes
    on meanwhile is done, and would be done again.
    """

    def __init__(self, connections: Connections, *, patience_s: float) -> None:
        self._db = connections
        self._patience_s = patience_s
        self._waiting: list[Waiting[_Sent, None]] = []
        self._busy_runs: set[int] = set()
        self._ready = 0
        """Those that wait, and whose run nobody writes to; none of them where a writer is to take them."""
        self._writers: set[asyncio.Task[None]] = set()
        self._late: set[asyncio.Task[None]] = set()
        """The writers whose statement has taken long."""

    async def append(self, batch: Append) -> None:
        """Writes the batch. Raises WrongExpectedVersion, StoreError."""
        if batch.spent_usd:
            batch.check_charge()
        waiting = Waiting(_Sent(os.urandom(16), batch), asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if batch.run_no not in self._busy_runs:
            self._ready += 1
            self._write_ready()
        await waiting.answer

    async def aclose(self) -> None:
        """Returns when everything that waits has been written or refused."""
        while self._writers:
            await asyncio.wait(self._writers)

    def _write_ready(self) -> None:
        """Has those that are ready written at once, unless they are to wait for a statement on its way."""
        is_worth_one = self._writers <= self._late or self._ready >= WORTH_RUNS
        if self._ready and is_worth_one and len(self._writers) < WRITERS:
            # It takes all with its first step.
            self._ready = 0
            self._writers.add(asyncio.create_task(self._write_waiting()))

    async def _write_waiting(self) -> None:
        """Writes all that wait; beside other statements one, and more only where that is worth it."""
        loop, own = asyncio.get_running_loop(), asyncio.current_task()
        assert own is not None
        try:
            is_next = True
            while is_next and (together := self._take()):
                runs = {each.item.batch.run_no for each in together}
                self._busy_runs |= runs
                timer = loop.call_later(LONG_S, self._let_others_go, own)
                try:
                    await write_together(together, self._write)
                finally:
                    timer.cancel()
                    self._late.discard(own)
                    self._busy_runs -= runs
                is_next = len(self._writers) == 1 or self._count_ready() >= WORTH_RUNS
        finally:
            # Whoever hears of the last append may come with the next one before this task counts as done.
            self._writers.discard(own)
        self._ready = self._count_ready()
        self._write_ready()

    def _let_others_go(self, writer: asyncio.Task[None]) -> None:
        self._late.add(writer)
        self._write_ready()

    def _count_ready(self) -> int:
        return sum(each.item.batch.run_no not in self._busy_runs for each in self._waiting)

    def _take(self) -> list[Waiting[_Sent, None]]:
        """The first appends that wait, one for each run that nobody writes to."""
        taken: list[Waiting[_Sent, None]] = []
        left: list[Waiting[_Sent, None]] = []
        runs, size, ready = set(self._busy_runs), 0, 0
        for each in self._waiting:
            batch = each.item.batch
            if batch.run_no in runs or len(taken) >= MOST_RUNS or size >= MOST_BYTES:
                left.append(each)
                ready += batch.run_no not in runs
            else:
                taken.append(each)
                size += _size(batch)
            # Also of one that is left: what came first for a run is written first.
            runs.add(batch.run_no)
        self._waiting, self._ready = left, ready
        self._write_ready()
        return taken

    async def _write(self, sent: Sequence[_Sent]) -> list[Exception | None]:
        rows = (LARGE_RUN_EVENTS, *tables_of(sent))
        written = await self._db.repeat(lambda db: db.fetch(_APPEND, *rows), patience_s=self._patience_s)
        runs = {as_int(row) for row in written}
        return [None if batch.run_no in runs else batch.refusal for _, batch in sent]


def _size(batch: Append) -> int:
    data = (*batch.events, *(step.data for step in batch.steps), *(each.data for each in batch.checkpoints))
    return sum(map(len, data)) + sum(len(content) for _, content in batch.owed)
