"""Threads that end when they are told to, answer everybody, and hold on to nothing."""

import asyncio
import threading
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.worker_threads import WorkerThreads, WorkItem, WorkResult

Work = Callable[[], Any]


def do(jobs: list[WorkItem[Work]]) -> list[WorkResult[Work]]:
    return [WorkResult(job, job.work(), None) for job in jobs]


class Result:
    """What can be watched going away."""


async def test_waiting_work_is_done_in_one_batch_and_each_gets_its_result() -> None:
    sizes: list[int] = []
    begun, held = threading.Event(), threading.Event()

    def counting(jobs: list[WorkItem[Work]]) -> list[WorkResult[Work]]:
        sizes.append(len(jobs))
        begun.set()
        return do(jobs)

    lane = WorkerThreads("test", counting, most=4)
    lane.start()
    first = lane.put(lambda: held.wait(60))
    assert await asyncio.to_thread(begun.wait, 20)
    others = [lane.put(partial(int, number)) for number in range(6)]
    held.set()
    assert await first
    assert await asyncio.gather(*others) == list(range(6))
    assert sizes == [1, 4, 2]
    lane.end()
    await asyncio.to_thread(lane.join)


async def test_queued_work_is_done_before_the_end_by_any_number_of_threads() -> None:
    lane = WorkerThreads("test", do, threads=3, most=2)
    lane.start()
    done = [lane.put(partial(int, number)) for number in range(50)]
    lane.end()
    await asyncio.to_thread(lane.join)
    assert await asyncio.gather(*done) == list(range(50))


async def test_an_idle_thread_holds_no_result() -> None:
    lane = WorkerThreads("test", do)
    lane.start()
    # The thread lets go of a batch when it has come round to wait for the next.
    gone, loop = asyncio.Event(), asyncio.get_running_loop()
    seen = weakref.ref(await lane.put(Result), lambda _: loop.call_soon_threadsafe(gone.set))
    await gone.wait()
    assert seen() is None
    lane.end()
    await asyncio.to_thread(lane.join)


async def test_a_close_that_is_cancelled_leaves_no_thread_and_no_connection_behind(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    database = Connections(tmp_path / "db", synchronous="NORMAL")
    await database.open()
    release = threading.Event()
    slow = asyncio.ensure_future(database.write(lambda _: release.wait(60)))
    await asyncio.sleep(0)
    closing = asyncio.create_task(database.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait({closing})
    release.set()
    assert await slow
    ours = [thread for thread in threading.enumerate() if thread not in before and "runglass" in thread.name]
    for thread in ours:
        await asyncio.to_thread(thread.join)
    await asyncio.get_running_loop().shutdown_default_executor()
    # The last connection that is closed takes the log along.
    assert not database.path.with_name("db-wal").exists()
