"""Follow a run's log: replay what the store holds, then wait for more, until the run has ended.

The tails of one run share their reading: one task listens, reads what is new and keeps the latest of it for
all. The task listens before it reads, so no commit between the two is missed, and a lost wake-up costs one
poll interval. A tail that falls behind reads the store. A page may be handed to tails that wait without
waking them. Knows nothing of HTTP.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from runglass.bus.base import Bus
from runglass.errors import StoreError, StoreWentBack
from runglass.log.events import TERMINAL_EVENTS, event_type_of
from runglass.store.records import RunRecord
from runglass.store.run_logs import RunLog
from runglass.tails.cursor import Page, TailCursor

PAGE_BYTES = 64 * 1024
"""About how many bytes a tail reads at a time; a slow reader costs up to four times that."""
WINDOW_BYTES = 4 * PAGE_BYTES
"""About how many bytes of a run's log are kept for slower tails; the newest page always is."""

Rows = Sequence[tuple[int, bytes]]
Read: TypeAlias = Callable[[], Awaitable[list[tuple[int, bytes]]]]
Take: TypeAlias = Callable[[Page], bool]
"""Takes a page at once; or returns False, or raises ValueError, and has done nothing."""


class Tails:
    """All tails on the runs of a store. A wake-up that the bus loses costs them at most `poll_s` seconds.

    Each read for a tail that is behind goes through `in_turn`, which may wait.
    """

    def __init__(
        self,
        store: RunLog,
        bus: Bus,
        *,
        poll_s: float,
        in_turn: Callable[[RunRecord, Read], Awaitable[list[tuple[int, bytes]]]] = lambda run, read: read(),
    ) -> None:
        self._store = store
        self._in_turn = in_turn
        self._bus = bus
        self._poll_s = poll_s
        self._windows: dict[int, _Window] = {}
        self._reads: dict[tuple[int, int], _SharedRead] = {}

    @property
    def followed_runs(self) -> int:
        """How many runs that go on have tails."""
        return len(self._windows)

    @property
    def held_bytes(self) -> int:
        """The bytes of logs that are kept for slower tails."""
        return sum(window.held_bytes for window in self._windows.values())

    @property
    def lag(self) -> int:
        """How many events that are read here the slowest tail has yet to take."""
        windows = self._windows.values()
        return max((window.head - each.after for window in windows for each in window.cursors), default=0)

    async def follow(
        self,
        run: RunRecord,
        *,
        after: int = 0,
        until: Collection[str] = (),
        idle_s: float | None = None,
        take: Take | None = None,
    ) -> AsyncGenerator[Page, None]:
        """Pages of the events after seq `after`, up to the run's last one or the first of a type in `until`.

        An empty page says that nothing has come for `idle_s` seconds. Ends without a page if the run ends at
        `after` or before. Raises StoreError.

        While the next page is waited for, what comes is first offered to `take`, and not yielded if that
        takes it; but one with a type in `until` always is. To wake each of many tails takes most time.
        """
        ends = TERMINAL_EVENTS.union(until)

        def take_whole(page: Page) -> bool:
            try:
                # Nothing comes after a run's end, but more than is wanted may come after a type in `until`.
                return take is not None and page.types.isdisjoint(until) and take(page)
            except ValueError:
                # An event that cannot be read: the tail that is woken for it tells its reader.
                return False

        cursor = TailCursor(after, idle_s=idle_s, take=take_whole)
        async with aclosing(self._pages(run, cursor)) as pages:
            async for page in pages:
                if ends.isdisjoint(page.types):
                    yield page
                    continue
                end = next(n for n, (_, data) in enumerate(page, 1) if event_type_of(data) in ends)
                yield page if end == len(page) else Page(page[:end])
                return

    async def _pages(self, run: RunRecord, cursor: TailCursor) -> AsyncGenerator[Page, None]:
        known = min(cursor.after, run.head)
        while cursor.after < run.head:
            page = await self._read(run, cursor.after)
            cursor.after = known = page[-1][0]
            yield page
        if run.ended:
            return
        # The record says that the run has not ended at its head, and the pages read since had no end. So the
        # end comes after `known`, and the log alone tells.
        async with self._window(run, cursor, known) as window:
            while True:
                if window.reading.done():
                    window.reading.result()
                behind = cursor.after < window.start
                page = await self._read(run, cursor.after) if behind else window.page(cursor.after)
                if page:
                    cursor.after = page[-1][0]
                    yield page
                elif window.reading.done():
                    return
                elif not await cursor.grown():
                    yield page

    @asynccontextmanager
    async def _window(self, run: RunRecord, cursor: TailCursor, known: int) -> "AsyncIterator[_Window]":
        """The run's window, with the cursor in it: the first tail opens it at `known`, the last closes it."""
        window = self._windows.get(run.no)
        if window is None or window.reading.done():
            window = _Window(self._store, self._bus, run, start=known, poll_s=self._poll_s)
            self._windows[run.no] = window
        window.cursors.add(cursor)
        try:
            yield window
        finally:
            window.cursors.remove(cursor)
            cursor.leave()
            if not window.cursors:
                if self._windows.get(run.no) is window:
                    del self._windows[run.no]
                await window.close()

    async def _read(self, run: RunRecord, after: int) -> Page:
        """The page after `after`, where one is known to exist; tails that ask meanwhile share the read."""
        key = (run.no, after)
        reading = self._reads.get(key)
        if reading is None:
            reading = self._reads[key] = _SharedRead(asyncio.create_task(self._read_page(run, after)))
            reading.task.add_done_callback(_retrieve_exception)
        # All tails that wait share the read, so only the cancellation of the last one may cancel it.
        reading.tails += 1
        try:
            await asyncio.wait({reading.task})
        finally:
            reading.tails -= 1
            if not reading.tails:
                del self._reads[key]
                reading.task.cancel()
        return reading.task.result()

    async def _read_page(self, run: RunRecord, after: int) -> Page:
        read = partial(self._store.events, run.no, after=after, limit_bytes=PAGE_BYTES)
        page = Page(await self._in_turn(run, read))
        if not page:
            raise StoreError(f"run {run.id!r} has lost its events after {after}; restore the store")
        return page


@dataclass(eq=False, slots=True)
class _SharedRead:
    """A page that is being read, and how many tails wait for it."""

    task: "asyncio.Task[Page]"
    tails: int = 0


class _Window:
    """A followed run's latest events after seq `start`, and the task that reads them."""

    def __init__(self, store: RunLog, bus: Bus, run: RunRecord, *, start: int, poll_s: float) -> None:
        self.start = start
        self.cursors: set[TailCursor] = set()
        self._rows: list[tuple[int, bytes]] = []
        self.held_bytes = 0
        self._pages: dict[int, Page] = {}
        self.reading = asyncio.create_task(self._read_on(store, bus, run, poll_s))
        self.reading.add_done_callback(lambda _: self._wake())

    @property
    def head(self) -> int:
        """Seq of the last event that was read."""
        return self.start + len(self._rows)

    def page(self, after: int) -> Page:
        """The first events after `after`, which is not before `start`; empty if there are none yet."""
        page = self._pages.get(after)
        if page is None:
            size, end = 0, max(after - self.start, 0)
            begin = end
            while end < len(self._rows) and size < PAGE_BYTES:
                size += len(self._rows[end][1])
                end += 1
            page = Page(self._rows[begin:end])
            if page:
                self._pages[after] = page
        return page

    async def close(self) -> None:
        self.reading.cancel()
        await asyncio.wait({self.reading})
        _retrieve_exception(self.reading)

    async def _read_on(self, store: RunLog, bus: Bus, run: RunRecord, poll_s: float) -> None:
        generation = store.generation
        async with bus.listen(run.id) as listener:
            while True:
                rows = await store.events(run.no, after=self.head, limit_bytes=PAGE_BYTES)
                if store.generation != generation:
                    generation = store.generation
                    await self._require_unchanged(store, run)
                    continue
                size = sum(len(data) for _, data in rows)
                if rows:
                    if rows[-1][0] != self.head + len(rows):
                        raise StoreError(f"the log of run {run.id!r} has a hole after {self.head}")
                    self._add(rows, size)
                    if event_type_of(rows[-1][1]) in TERMINAL_EVENTS:
                        return
                if size < PAGE_BYTES:
                    await listener.wait(poll_s)

    async def _require_unchanged(self, store: RunLog, run: RunRecord) -> None:
        """Raises StoreWentBack unless the store still has the last event that was read here, as it was."""
        found, last = await store.run(run.id), self._rows[-1:]
        stored = await store.events(run.no, after=self.head - 1, limit_bytes=1)
        if last and stored == last and found is not None and found.no == run.no:
            return
        if last:
            # First: a reader who comes back is to be refused the numbers that are given twice.
            await store.note_setback(run.id, run.project_id, had=self.head)
        raise StoreWentBack(
            f"the store was restarted or replaced, and may lack events of run {run.id!r}; follow it again"
        )

    def _add(self, rows: Rows, size: int) -> None:
        passed = min((cursor.after for cursor in self.cursors), default=self.head)
        dropped = 0
        for seq, data in self._rows:
            if seq > passed and self.held_bytes + size <= WINDOW_BYTES:
                break
            dropped += 1
            self.held_bytes -= len(data)
        del self._rows[:dropped]
        self.start += dropped
        self._rows += rows
        self.held_bytes += size
        self._pages.clear()
        for cursor in self.cursors:
            if cursor.after >= self.start:
                # A tail that waits, and takes all that is new for it at once, is not woken.
                page = self.page(cursor.after)
                if page and page[-1][0] == self.head and cursor.offer(page, self.head):
                    continue
            cursor.wake()

    def _wake(self) -> None:
        for cursor in self.cursors:
            cursor.wake()


def _retrieve_exception(task: "asyncio.Task[Page] | asyncio.Task[None]") -> None:
    """Marks the task's exception as retrieved, as there may be no tail left that waits for it."""
    if not task.cancelled():
        task.exception()
