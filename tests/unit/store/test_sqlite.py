"""What the SQLite store promises beyond the protocol: cheap appends, index searches, readers kept apart."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from runglass.errors import StoreError
from runglass.store.run_logs import LOOK_UP_BYTES
from runglass.store.sqlite import connections
from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.store import SqliteStore
from runglass.store.sqlite.worker_threads import WorkItem
from tests.conformance.stores import batch
from tests.records import new_run


async def on_each_reader(store: SqliteStore, work: Callable[[sqlite3.Connection], object]) -> None:
    """Does it on the connection of each thread that reads."""
    all_at_once = threading.Barrier(connections.READERS)

    def met(db: sqlite3.Connection) -> None:
        # No thread takes the work of another one.
        all_at_once.wait()
        work(db)

    await asyncio.gather(*(store.connections.read(met) for _ in range(connections.READERS)))


def files_with(text: bytes, folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir() if text in file.read_bytes()]


async def test_an_append_does_not_write_the_request_again(tmp_path: Path) -> None:
    log = tmp_path / "db-wal"
    async with SqliteStore(tmp_path / "db") as store:
        project = await store.ensure_project("acme", "demo")
        run = await store.create_run(new_run(project.id, "f", id="run-1", request=b"x" * 1_000_000))
        before = log.stat().st_size
        for head in range(3):
            await store.append(batch(run, head, b"{}"))
        assert log.stat().st_size - before < 200_000


async def test_a_look_up_does_not_wait_for_large_reads(tmp_path: Path) -> None:
    release = threading.Event()
    async with SqliteStore(tmp_path / "db") as store:
        project = await store.ensure_project("acme", "demo")
        large = [
            asyncio.ensure_future(store.connections.read(lambda _: release.wait(60)))
            for _ in range(connections.READERS * 3)
        ]
        try:
            assert await store.project(project.id) == project
            assert await store.find_key(b"digest") is None
            assert await store.find_flow(project.id, "f") is None
            assert await store.run("r") is None
            short = partial(store.trace, most_log_bytes=LOOK_UP_BYTES)
            assert await short("r", project_id=project.id, limit_bytes=1) is None
        finally:
            release.set()
        assert all(await asyncio.gather(*large))


async def test_a_hot_row_is_read_on_the_loop_and_by_a_thread_where_the_loop_cannot(tmp_path: Path) -> None:
    who: list[int] = []

    def work(db: sqlite3.Connection) -> object:
        who.append(threading.get_ident())
        if len(who) == 2:
            raise sqlite3.OperationalError("database is locked")
        return db.execute("SELECT 1").fetchone()

    async with SqliteStore(tmp_path / "db") as store:
        assert await store.connections.read_inline(work) == (1,)
        assert who == [threading.get_ident()]
        assert await store.connections.read_inline(work) == (1,)
    assert who[1] == threading.get_ident()
    assert who[2] != threading.get_ident()


async def test_while_the_file_is_locked_a_batch_waits_once_and_not_once_for_each_of_it(
    tmp_path: Path,
) -> None:
    database, loop = Connections(tmp_path / "db", synchronous="NORMAL"), asyncio.get_running_loop()
    await database.open()
    ran: list[str] = []
    try:
        with (
            closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as other,
            closing(sqlite3.connect(tmp_path / "db", isolation_level=None, timeout=0.01)) as writer,
        ):
            other.execute("BEGIN IMMEDIATE")
            writer.set_trace_callback(ran.append)
            jobs = [WorkItem(lambda _: None, loop, loop.create_future()) for _ in range(100)]
            results = database.commit(writer, jobs)
            other.execute("ROLLBACK")
        assert ran == ["BEGIN IMMEDIATE"]
        assert all(isinstance(each.error, StoreError) and "locked" in str(each.error) for each in results)
        assert await database.write(lambda _: 1) == 1
    finally:
        await database.close()


async def test_an_opening_that_is_cancelled_leaves_no_connection_open(tmp_path: Path) -> None:
    database = Connections(tmp_path / "db", synchronous="NORMAL")
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("BEGIN IMMEDIATE")
        opening = asyncio.create_task(database.open())
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.sleep(0)
        other.execute("ROLLBACK")
        with pytest.raises(asyncio.CancelledError):
            await opening
        await asyncio.get_running_loop().shutdown_default_executor()
    # The last connection that is closed takes the log along.
    assert not database.path.with_name("db-wal").exists()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit SET name = 'nobody'",
        "UPDATE OR REPLACE audit SET no = 2 WHERE no = 1",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit SELECT no, '', 9, '', '', 9, '', '', '', '', x'7b7d' FROM audit",
    ],
)
async def test_the_database_itself_refuses_changes_of_entries_of_the_audit_log(
    tmp_path: Path, sql: str
) -> None:
    async with SqliteStore(tmp_path / "db") as store:
        project = await store.ensure_project("acme", "demo")
        await store.set_capture(project.id, "full")
        before = await store.audit(None, limit=10)
        with (
            closing(sqlite3.connect(store.connections.path, isolation_level=None)) as database,
            pytest.raises(sqlite3.IntegrityError, match="append-only"),
        ):
            database.execute(sql)
        assert await store.audit(None, limit=10) == before
        assert len(before) == 2


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
