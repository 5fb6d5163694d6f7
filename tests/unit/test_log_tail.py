"""Tails: replay, follow, resume, what they share, and the promise that no wake-up has to arrive."""

import asyncio
import gc
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.bus.base import Bus
from runglass.errors import StoreError, StoreWentBack
from runglass.store.records import RunRecord
from runglass.tails.cursor import Page
from runglass.tails.run_log import PAGE_BYTES, WINDOW_BYTES, Read, Tails
from tests.examples import examples
from tests.fakes import in_virtual_time, let_time_pass
from tests.faulty_store import FaultyStore, Held, ReplacedStore
from tests.records import run_record

LAST = b'{"eventType":"flow_completed"}'
PAUSED = b'{"eventType":"step_paused"}'
GONE = StoreError("the disk is gone")


def event(number: int, *, size: int = 0) -> bytes:
    return b'{"eventType":"step_started","n":%d,"x":"%b"}' % (number, b"x" * size)


class GrowingLog(ReplacedStore):
    """The log of one run, in memory, and tails that follow it.

    A read sees it as it is when it begins, and takes as many turns as `turns` says.
    """

    def __init__(self, turns: Callable[[], int] = lambda: 0) -> None:
        super().__init__(Path("nowhere"))
        self.log: list[bytes] = []
        self.bus = Bus()
        self._turns = turns

    @property
    def record(self) -> RunRecord:
        """The run as it is now."""
        status = "completed" if self.log[-1:] == [LAST] else "running"
        return run_record(head=len(self.log), status=status)

    async def run(self, run_id: str, *, project_id: int | None = None) -> RunRecord:
        return self.record

    async def events(self, run_no: int, *, after: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        found, size = [], 0
        for seq, data in enumerate(self.log[after:], after + 1):
            found.append((seq, data))
            size += len(data)
            if size >= limit_bytes:
                break
        await turns(self._turns())
        return found

    async def write(self, *events: bytes, wakes: bool = True) -> None:
        """Once its tails have read what there is."""
        await turns(20)
        self.log += events
        if wakes:
            await self.bus.wake("r")

    def tails(self, *, poll_s: float = 9_999) -> Tails:
        """Tails that no poll helps to what a lost wake-up did not tell, unless it says so."""
        return Tails(self, self.bus, poll_s=poll_s)


@pytest.fixture
def log() -> GrowingLog:
    return GrowingLog()


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def collect(tails: Tails, run: RunRecord, **how: Any) -> list[int]:
    async with aclosing(tails.follow(run, **how)) as pages:
        return [seq async for page in pages for seq, _ in page]


async def first_page(pages: AsyncGenerator[Page, None]) -> list[int]:
    return [seq for seq, _ in await anext(pages)]


async def test_a_tail_goes_on_where_a_store_that_was_replaced_has_what_it_had_and_ends_where_it_differs(
    log: GrowingLog,
) -> None:
    async with aclosing(log.tails().follow(run_record())) as pages:
        await log.write(event(1), event(2))
        assert await first_page(pages) == [1, 2]
        log.generation += 1
        await log.write(event(3))
        assert await first_page(pages) == [3]
        assert log.lost == {}
        log.log[2] = event(7)
        log.generation += 1
        await log.write(event(4))
        with pytest.raises(StoreWentBack, match="may lack events"):
            await first_page(pages)
        assert log.lost == {"r": 3}


@in_virtual_time
async def test_a_lost_wake_up_costs_a_poll_and_no_event(log: GrowingLog) -> None:
    task = asyncio.create_task(collect(log.tails(poll_s=300), run_record()))
    for data in (*map(event, range(5)), LAST):
        await let_time_pass(180)
        await log.write(data, wakes=False)
    assert await task == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("count", [1, 50])
async def test_a_wake_up_costs_one_read_however_many_follow(log: GrowingLog, count: int) -> None:
    reads = FaultyStore(log).calls("events")
    tails = log.tails()
    pages = [tails.follow(run_record()) for _ in range(count)]
    for head in range(10):
        waiting = [asyncio.ensure_future(anext(each, None)) for each in pages]
        await log.write(event(head))
        found = await asyncio.gather(*waiting)
        assert found == [((head + 1, event(head)),)] * count
        assert all(page is found[0] for page in found), "a page that is not shared is framed again"
    # One when the first began to follow, and one for each append.
    assert len(reads) <= 11
    for each in pages:
        await each.aclose()


async def test_tails_that_replay_the_same_page_at_the_same_time_share_the_read(log: GrowingLog) -> None:
    reads = FaultyStore(log).calls("events")
    await log.write(*(event(n, size=30_000) for n in range(10)), LAST)
    tails, ended = log.tails(), log.record
    assert await asyncio.gather(*[collect(tails, ended) for _ in range(20)]) == [list(range(1, 12))] * 20
    assert len(reads) == 4


async def test_a_read_in_line_lasts_as_long_as_a_tail_waits_for_it(log: GrowingLog) -> None:
    reads = FaultyStore(log).calls("events")
    await log.write(event(0), LAST)
    reached, may_read, asked = asyncio.Event(), asyncio.Event(), 0

    async def in_turn(_: RunRecord, read: Read) -> list[tuple[int, bytes]]:
        nonlocal asked
        asked += 1
        reached.set()
        await may_read.wait()
        return await read()

    tails = Tails(log, log.bus, poll_s=60, in_turn=in_turn)
    ended = log.record
    leaving, staying = (asyncio.create_task(collect(tails, ended)) for _ in range(2))
    await reached.wait()
    leaving.cancel()
    await asyncio.wait({leaving})
    staying.cancel()
    await asyncio.wait({staying})
    may_read.set()
    assert await collect(tails, ended) == [1, 2]
    assert (asked, len(reads)) == (2, 1)


async def test_a_tail_ends_at_the_first_event_it_is_to_end_at(log: GrowingLog) -> None:
    await log.write(event(1), PAUSED, event(3), PAUSED, event(5))
    tails = log.tails()
    for record in (run_record(), log.record):
        for after, seqs in ((0, [1, 2]), (2, [3, 4])):
            assert await collect(tails, record, after=after, until={"step_paused"}) == seqs


async def test_an_end_that_comes_before_the_place_to_resume_at_ends_the_tail(log: GrowingLog) -> None:
    task = asyncio.create_task(collect(log.tails(), run_record(), after=7))
    await log.write(event(0), LAST)
    assert await task == []


async def test_what_comes_while_a_tail_waits_is_taken_without_waking_it(log: GrowingLog) -> None:
    """But not what it begins with, and what ends it before the run does."""
    await log.write(event(1))
    taken = asyncio.Queue[Page]()

    def take(page: Page) -> bool:
        taken.put_nowait(page)
        return True

    begun, tails = log.record, log.tails()
    async with aclosing(tails.follow(begun, until={"step_paused"}, take=take)) as pages:
        assert await first_page(pages) == [1]
        waiting = asyncio.create_task(first_page(pages))
        for seq in (2, 3, 4):
            await log.write(event(seq))
            assert await taken.get() == ((seq, event(seq)),)
            assert (tails.lag, tails.held_bytes) == (0, len(event(seq))), "what all have passed is not kept"
        assert not waiting.done()
        await log.write(event(5), PAUSED)
        assert await waiting == [5, 6]
        assert await anext(pages, None) is None
    assert taken.empty()


async def test_a_page_that_cannot_be_taken_is_yielded_and_hinders_nobody(log: GrowingLog) -> None:
    tails = log.tails()
    async with (
        aclosing(tails.follow(run_record(), take=Mock(side_effect=ValueError("no type")))) as refusing,
        aclosing(tails.follow(run_record())) as other,
    ):
        for seq in (1, 2):
            waiting = [asyncio.create_task(first_page(each)) for each in (refusing, other)]
            await log.write(event(seq))
            assert await asyncio.gather(*waiting) == [[seq], [seq]]


@examples(40, of=200)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.sampled_from([0, 0, 10, 20_000, PAGE_BYTES, 3 * PAGE_BYTES]), max_size=40),
    readers=st.integers(1, 12),
)
def test_every_tail_sees_exactly_the_log(seed: int, sizes: list[int], readers: int) -> None:
    """Any number, from any place, however slow, whoever is cancelled, and however reads and appends fall.

    Some take pages while they wait, now and then.

    No poll comes to the rescue: a wake-up that got lost between them would end in a timeout.
    """
    chance = random.Random(seed)
    log = [*(event(n, size=size) for n, size in enumerate(sizes)), LAST]

    async def read(tails: Tails, store: GrowingLog) -> None:
        await turns(chance.randrange(60))
        begin = after = chance.randint(0, len(store.log))
        seen: list[bytes] = []
        slowness = chance.choice([1, 1, 5, 200])

        def take(page: Page) -> bool:
            nonlocal after
            if chance.random() < 0.3:
                return False
            for seq, data in page:
                after += 1
                assert seq == after
                seen.append(data)
            return True

        taking = chance.choice([None, take])
        while after < len(log):
            # Leaves at some page, by being closed or cancelled, and comes back to where it was.
            head = chance.randint(after, len(store.log))
            status = "completed" if head == len(log) else "running"
            leaving = chance.choice([1, 3, 1000])
            async with aclosing(
                tails.follow(run_record(head=head, status=status), after=after, take=taking)
            ) as pages:
                while leaving := leaving - 1:
                    task = asyncio.ensure_future(anext(pages, None))
                    if chance.random() < 0.1:
                        await turns(chance.randrange(4))
                        task.cancel()
                    await asyncio.wait({task})
                    page = None if task.cancelled() else task.result()
                    if not page:
                        break
                    for seq, data in page:
                        after += 1
                        assert seq == after
                        seen.append(data)
                    await turns(chance.randrange(slowness))
        assert seen == log[begin:]

    async def append(store: GrowingLog) -> None:
        rest = list(log)
        while rest:
            size = chance.randint(1, 3)
            store.log += rest[:size]
            del rest[:size]
            await store.bus.wake("r")
            await turns(chance.randrange(12))

    async def run_once() -> None:
        store = GrowingLog(lambda: chance.randrange(6))
        tails = store.tails()
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for _ in range(readers):
                group.create_task(read(tails, store))
            group.create_task(append(store))
        assert tails.followed_runs == 0
        assert store.bus.subjects == 0

    asyncio.run(run_once())


@pytest.mark.parametrize("takes", [False, True])
@in_virtual_time
async def test_a_tail_keeps_one_timer_and_its_silence_counts_from_the_last_event(
    log: GrowingLog, monkeypatch: pytest.MonkeyPatch, takes: bool
) -> None:
    taken, timers = asyncio.Queue[Page](), 0
    loop = asyncio.get_running_loop()
    call_at = loop.call_at

    def noting(when: float, *args: Any, **options: Any) -> asyncio.TimerHandle:
        nonlocal timers
        timers += when > loop.time() + 500
        return call_at(when, *args, **options)

    def take(page: Page) -> bool:
        taken.put_nowait(page)
        return True

    monkeypatch.setattr(loop, "call_at", noting)
    tails = log.tails(poll_s=300)
    async with aclosing(tails.follow(run_record(), idle_s=1000, take=take if takes else None)) as pages:
        coming = asyncio.ensure_future(anext(pages))
        for number in range(5):
            await let_time_pass(180)
            await log.write(event(number))
            found = await (taken.get() if takes else coming)
            assert found == ((number + 1, event(number)),)
            coming = coming if takes else asyncio.ensure_future(anext(pages))
        last_s = loop.time()
        assert await coming == ()
        assert loop.time() - last_s == pytest.approx(1000, abs=1)
        assert timers == 2


async def test_a_reader_that_stands_still_costs_a_window_and_misses_nothing(log: GrowingLog) -> None:
    tails = log.tails()
    async with aclosing(tails.follow(run_record())) as slow:
        waiting = asyncio.ensure_future(anext(slow, None))
        fast = asyncio.create_task(collect(tails, run_record()))
        for n in range(1000):
            await log.write(event(n, size=5000))
            await turns(20)
            assert tails.held_bytes <= WINDOW_BYTES
        await log.write(LAST)
        assert await fast == list(range(1, 1002))
        seen = [data for _, data in await waiting or ()]
        async for page in slow:
            assert sum(len(data) for _, data in page) < PAGE_BYTES + 6000
            seen += [data for _, data in page]
    assert seen == log.log


@pytest.fixture
async def noise() -> AsyncIterator[list[dict[str, Any]]]:
    """The failures that the event loop reports, as no task has retrieved them."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    yield heard
    await asyncio.sleep(0)
    gc.collect()
    assert heard == []


# An ended run is replayed with a read that tails share; a live one is followed by the window's reading.
@pytest.mark.parametrize(
    "run", [run_record(head=2, status="completed"), run_record()], ids=["replay", "follow"]
)
class TestShared:
    async def started(
        self, log: GrowingLog, run: RunRecord
    ) -> tuple[Held, Tails, list[asyncio.Task[list[int]]]]:
        """Tails that wait for a read, which will fail."""
        await log.write(event(0), LAST)
        read = FaultyStore(log).hold("events", error=GONE, times=1)
        tails = log.tails()
        tasks = [asyncio.create_task(collect(tails, run)) for _ in range(5)]
        await read.reached()
        return read, tails, tasks

    async def test_a_failure_reaches_everyone_who_has_not_left_and_the_next_one_reads_anew(
        self, log: GrowingLog, run: RunRecord, noise: list[dict[str, Any]]
    ) -> None:
        read, tails, (leaving, *staying) = await self.started(log, run)
        leaving.cancel()
        await asyncio.wait({leaving})
        read.let_go()
        assert await asyncio.gather(*staying, return_exceptions=True) == [GONE] * 4
        assert await collect(tails, run) == [1, 2]

    async def test_a_failure_after_all_tails_have_left_is_not_reported(
        self, log: GrowingLog, run: RunRecord, noise: list[dict[str, Any]]
    ) -> None:
        read, tails, tasks = await self.started(log, run)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        read.let_go()
        await turns(5)
        assert tails.followed_runs == 0


async def test_a_tail_that_comes_after_a_failure_reads_anew(log: GrowingLog) -> None:
    """The others have not left yet: one of them does not read on."""
    tails = log.tails()
    async with aclosing(tails.follow(run_record())) as first:
        await log.write(event(0))
        assert await anext(first)
        faults = FaultyStore(log)
        faults.fail("events", GONE)
        await log.bus.wake("r")
        await turns(10)
        faults.mend("events")
        second = asyncio.create_task(collect(tails, run_record()))
        await log.write(LAST)
        assert await second == [1, 2]
        with pytest.raises(StoreError, match="the disk is gone"):
            await anext(first)
    assert tails.followed_runs == 0
    assert log.bus.subjects == 0


async def test_a_hole_in_a_log_and_deleted_events_are_errors_and_not_waited_for(log: GrowingLog) -> None:
    with pytest.raises(StoreError, match="run 'r' has lost its events after 0"):
        await collect(log.tails(), run_record(head=5))
    FaultyStore(log).answer("events", [(1, event(1)), (3, event(3))])
    with pytest.raises(StoreError, match="run 'r' has a hole after 0"):
        await collect(log.tails(), run_record())
