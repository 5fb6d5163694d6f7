"""The tail: replay, follow, resume, and the promise that no wake-up has to arrive."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runglass.bus.base import Bus
from runglass.bus.memory import MemoryBus, MemoryListener
from runglass.store.base import Append, NewRun, RunRecord
from runglass.store.sqlite import SqliteStore
from runglass.tail import tail

LAST = b'{"eventType":"flow_completed"}'


def event(number: int) -> bytes:
    return b'{"eventType":"step_started","n":%d}' % number


class DeafBus(MemoryBus):
    """Loses every wake-up."""

    async def wake(self, run_id: str) -> None:
        return


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[tuple[SqliteStore, RunRecord]]:
    async with SqliteStore(path, synchronous="NORMAL") as store:
        project = await store.ensure_project("acme", "demo")
        flow = await store.put_draft(project.id, "f", name=None, capture=None, source=b"{}")
        run = NewRun(
            id="r",
            project_id=project.id,
            flow_id=flow.id,
            version=0,
            trigger_type="api",
            capture="off",
            session_id=None,
            request=b"{}",
            summary=b"{}",
        )
        yield store, await store.create_run(run)


async def write(store: SqliteStore, bus: Bus, run: RunRecord, head: int, events: list[bytes]) -> None:
    status = "completed" if events[-1] == LAST else "running"
    await store.append(
        Append(run_no=run.no, head=head, fence=run.fence, events=events, status=status, summary=b"{}")
    )
    await bus.wake(run.id)


async def collect(
    store: SqliteStore, bus: Bus, run: RunRecord, *, after: int = 0, poll_s: float = 60
) -> list[int]:
    seqs: list[int] = []
    async with asyncio.timeout(20), aclosing(tail(store, bus, run, after=after, poll_s=poll_s)) as pages:
        async for page in pages:
            seqs += [seq for seq, _ in page]
    return seqs


async def test_an_ended_run_is_replayed_and_the_tail_ends(tmp_path: Path) -> None:
    async with opened(tmp_path / "db") as (store, run):
        await write(store, MemoryBus(), run, 0, [*map(event, range(9)), LAST])
        for after in range(10):
            assert await collect(store, MemoryBus(), run, after=after) == list(range(after + 1, 11))


@pytest.mark.parametrize("after", [10, 11, 1000])
async def test_there_is_nothing_after_the_last_event(tmp_path: Path, after: int) -> None:
    async with opened(tmp_path / "db") as (store, run):
        await write(store, MemoryBus(), run, 0, [*map(event, range(9)), LAST])
        assert await collect(store, MemoryBus(), run, after=after) == []


async def test_a_live_run_is_followed_to_its_end(tmp_path: Path) -> None:
    bus = MemoryBus()
    async with opened(tmp_path / "db") as (store, run):
        following = [asyncio.create_task(collect(store, bus, run)) for _ in range(5)]
        for head in range(50):
            await write(store, bus, run, head, [event(head)])
        await write(store, bus, run, 50, [LAST])
        assert await asyncio.gather(*following) == [list(range(1, 52))] * 5


async def test_a_lost_wake_up_costs_a_poll_and_no_event(tmp_path: Path) -> None:
    bus = DeafBus()
    async with opened(tmp_path / "db") as (store, run):
        following = asyncio.create_task(collect(store, bus, run, poll_s=0.01))
        for head in range(5):
            await write(store, bus, run, head, [event(head)])
        await write(store, bus, run, 5, [LAST])
        assert await following == [1, 2, 3, 4, 5, 6]


async def test_what_is_written_between_the_last_read_and_the_wait_is_not_missed(tmp_path: Path) -> None:
    """A listener that writes just before it waits stands for the worst moment there is."""
    bus = MemoryBus()
    async with opened(tmp_path / "db") as (store, run):

        class WritesBeforeItWaits(MemoryListener):
            written = False

            async def wait(self, timeout_s: float) -> None:
                if not self.written:
                    self.written = True
                    await write(store, bus, run, 0, [LAST])
                await super().wait(timeout_s)

        class Worst(MemoryBus):
            @asynccontextmanager
            async def listen(self, run_id: str) -> AsyncIterator[MemoryListener]:
                listener = WritesBeforeItWaits()
                bus._listeners.setdefault(run_id, set()).add(listener)
                yield listener

        assert await collect(store, Worst(), run) == [1]


async def test_a_reader_that_leaves_takes_its_listener_along(tmp_path: Path) -> None:
    bus = MemoryBus()
    async with opened(tmp_path / "db") as (store, run):
        await write(store, bus, run, 0, [event(0)])
        async with aclosing(tail(store, bus, run)) as pages:
            assert await anext(pages)
            assert bus._listeners
        assert not bus._listeners


@settings(max_examples=25, deadline=None)
@given(batches=st.lists(st.integers(1, 40), min_size=1, max_size=12), data=st.data())
def test_resuming_anywhere_loses_and_repeats_nothing(batches: list[int], data: st.DataObject) -> None:
    total = sum(batches) + 1
    after = data.draw(st.integers(0, total))

    async def run_once() -> list[int]:
        bus = MemoryBus()
        with tempfile.TemporaryDirectory() as folder:
            async with opened(Path(folder) / "db") as (store, run):
                following = asyncio.create_task(collect(store, bus, run, after=after))
                head = 0
                for size in batches:
                    await write(store, bus, run, head, [event(head + offset) for offset in range(size)])
                    head += size
                await write(store, bus, run, head, [LAST])
                return await following

    assert asyncio.run(run_once()) == list(range(after + 1, total + 1))


class CountingStore(SqliteStore):
    """Counts what a tail asks of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, synchronous="NORMAL")
        self.asked: list[str] = []

    async def run(self, run_id: str) -> RunRecord | None:
        self.asked.append("run")
        return await super().run(run_id)

    async def events(self, run_no: int, *, after: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        self.asked.append("events")
        return await super().events(run_no, after=after, limit_bytes=limit_bytes)


async def test_a_wake_up_costs_one_read(tmp_path: Path) -> None:
    bus = MemoryBus()
    async with (
        asyncio.timeout(20),
        opened(tmp_path / "db") as (_, run),
        CountingStore(tmp_path / "db") as store,
        aclosing(tail(store, bus, run, poll_s=60)) as pages,
    ):
        assert await anext(pages) == []
        assert store.asked == ["run", "events"]
        for head in range(10):
            await write(store, bus, run, head, [event(head)])
            assert await anext(pages) == [(head + 1, event(head))]
        assert store.asked == ["run", *["events"] * 11]


async def test_pages_that_are_full_follow_each_other_without_a_wait(tmp_path: Path) -> None:
    bus = DeafBus()
    async with opened(tmp_path / "db") as (store, run):
        large = [b'{"eventType":"step_started","x":"%b"}' % (b"x" * 30_000)] * 10
        await write(store, bus, run, 0, [*large, LAST])
        assert await collect(store, bus, run) == list(range(1, 12))


async def test_a_tail_ends_at_the_first_event_it_is_to_end_at(tmp_path: Path) -> None:
    paused = b'{"eventType":"step_paused"}'
    bus = MemoryBus()
    async with opened(tmp_path / "db") as (store, run):
        await write(store, bus, run, 0, [event(1), paused, event(3), paused, event(5)])
        for after, seqs in ((0, [1, 2]), (2, [3, 4])):
            async with (
                asyncio.timeout(20),
                aclosing(tail(store, bus, run, after=after, until={"step_paused"})) as pages,
            ):
                assert [seq async for page in pages for seq, _ in page] == seqs


async def test_an_end_that_comes_before_the_place_to_resume_at_ends_the_tail(tmp_path: Path) -> None:
    bus = MemoryBus()
    async with (
        asyncio.timeout(20),
        opened(tmp_path / "db") as (store, run),
        aclosing(tail(store, bus, run, after=7, poll_s=60)) as pages,
    ):
        assert await anext(pages) == []
        await write(store, bus, run, 0, [event(0), LAST])
        assert [page async for page in pages] == []
