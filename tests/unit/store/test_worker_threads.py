"""Threads that end when they are told to, answer everybody, and hold on to nothing."""

import asyncio
import threading
from pathlib import Path

from runglass.store.sqlite.connections import Connections


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
