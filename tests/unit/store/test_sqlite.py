"""What the SQLite store promises beyond the protocol: cheap appends, index searches, readers kept apart.

And that what it removes goes by indexes alone, and is in no file then.
"""

import asyncio
import random
import re
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from runglass.errors import StoreError
from runglass.store.records import Checkpoint, RunRecord
from runglass.store.run_logs import LOOK_UP_BYTES
from runglass.store.run_tables import ROWS_OF_RUN
from runglass.store.sqlite import connections
from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.migrations import migrate_sqlite
from runglass.store.sqlite.store import SqliteStore
from runglass.store.sqlite.worker_threads import WorkItem
from runglass.wire.query import RunQuery, first_id
from tests.conformance.stores import CALL, batch, make_run, purge_all, run_with
from tests.conformance.test_removal import ended_run, run_with_content
from tests.conformance.test_run_lists import CASES, NOW, all_pages, asked, known_runs


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "db", synchronous="NORMAL") as opened:
        yield opened


async def on_each_reader(store: SqliteStore, work: Callable[[sqlite3.Connection], object]) -> None:
    """Does it on the connection of each thread that reads."""
    all_at_once = threading.Barrier(connections.READERS)

    def met(db: sqlite3.Connection) -> None:
        # No thread takes the work of another one.
        all_at_once.wait()
        work(db)

    await asyncio.gather(*(store.connections.read(met) for _ in range(connections.READERS)))


async def plan_of(store: SqliteStore, sql: str) -> list[str]:
    """The lines of SQLite's plan for the statement."""
    rows = await store.connections.read(lambda db: db.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall())
    return [str(row[3]) for row in rows]


def files_with(text: bytes, folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir() if text in file.read_bytes()]


async def test_an_append_does_not_write_the_request_again(store: SqliteStore, tmp_path: Path) -> None:
    log = tmp_path / "db-wal"
    run = await make_run(store, request=b"x" * 1_000_000)
    before = log.stat().st_size
    for head in range(3):
        await store.append(batch(run, head, b"{}"))
    assert log.stat().st_size - before < 200_000


async def test_a_look_up_does_not_wait_for_large_reads(store: SqliteStore) -> None:
    release = threading.Event()
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


async def test_a_hot_row_is_read_on_the_loop_and_by_a_thread_where_the_loop_cannot(
    store: SqliteStore,
) -> None:
    who: list[int] = []

    def work(db: sqlite3.Connection) -> object:
        who.append(threading.get_ident())
        if len(who) == 2:
            raise sqlite3.OperationalError("database is locked")
        return db.execute("SELECT 1").fetchone()

    assert await store.connections.read_inline(work) == (1,)
    assert who == [threading.get_ident()]
    assert await store.connections.read_inline(work) == (1,)
    assert who[1] == threading.get_ident()
    assert who[2] != threading.get_ident()


async def test_while_the_file_is_locked_a_batch_waits_once_and_not_once_for_each_of_it(
    store: SqliteStore, tmp_path: Path
) -> None:
    ran: list[str] = []
    loop = asyncio.get_running_loop()
    with (
        closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as other,
        closing(sqlite3.connect(tmp_path / "db", isolation_level=None, timeout=0.01)) as writer,
    ):
        other.execute("BEGIN IMMEDIATE")
        writer.set_trace_callback(ran.append)
        jobs = [WorkItem(lambda _: None, loop, loop.create_future()) for _ in range(100)]
        results = store.connections.commit(writer, jobs)
        other.execute("ROLLBACK")
    assert ran == ["BEGIN IMMEDIATE"]
    assert all(isinstance(each.error, StoreError) and "locked" in str(each.error) for each in results)
    assert await store.connections.write(lambda _: 1) == 1


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
    store: SqliteStore, sql: str
) -> None:
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


async def purge(store: SqliteStore, run: RunRecord) -> None:
    assert await store.purge_runs([run.no])
    await purge_all(store, limit_rows=100)
    while await store.compact(limit_bytes=1 << 20):
        pass


def test_every_table_with_rows_of_a_run_is_known() -> None:
    """A table that is forgotten here would keep its rows of purged runs for ever."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        migrate_sqlite(database)
        found = database.execute(
            "SELECT m.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c"
            " WHERE m.type = 'table' AND c.name = 'run_no'"
        )
        assert {name for (name,) in found} - {
            "purged_run",
            "ended_run",
            "importing_run",
            "due_outline",
            # Its row goes with that in `run`, by a trigger.
            "run_error",
            # A run that has ended waits no more.
            "queue",
            # It says for a while that the run was deleted.
            "recorded_trace",
        } == set(ROWS_OF_RUN)


async def test_due_runs_and_leftover_rows_are_found_by_an_index(store: SqliteStore) -> None:
    statements: list[str] = []
    run = await run_with_content(store)
    others = [(await run_with_content(store, f"run-{number}")).no for number in (2, 3)]
    await on_each_reader(store, lambda db: db.set_trace_callback(statements.append))
    await store.connections.write(lambda db: db.set_trace_callback(statements.append))
    for with_content in (False, True):
        await store.ended_runs(run.flow_id, before="2027", with_content=with_content, limit=5)
    _, place = await store.strip_content([run.no], None, limit_rows=1, limit_bytes=1 << 20)
    await store.strip_content([run.no], place, limit_rows=33, limit_bytes=1 << 20)
    await store.purge_runs([run.no])
    await purge_all(store, limit_rows=1, limit_bytes=1)
    many = {"limit_rows": 1000, "limit_bytes": 1 << 20}
    assert await store.strip_content(others, None, **many) == (2, None)
    assert await store.purge_runs(others) == await store.purge_rows(others, **many) == 2
    await on_each_reader(store, lambda db: db.set_trace_callback(None))
    await store.connections.write(lambda db: db.set_trace_callback(None))
    asked = [text for text in statements if text.startswith(("SELECT", "DELETE", "UPDATE"))]
    plans = {text: await plan_of(store, text) for text in asked}
    assert len(plans) > 30
    of_lists = ("LIST SUBQUERY", "SCAN json_each")
    for text, plan in plans.items():
        if not any(table in text for table in ("purged_run LIMIT", "_run ORDER", "run_number")):
            allowed = ("SEARCH", "CORRELATED SCALAR", *of_lists)
            assert [line for line in plan if not line.startswith(allowed)] == [], text
    assert "run_with_content (flow_id=? AND ended_at<?)" in str(plans)
    assert "run_ended (flow_id=? AND ended_at<?)" in str(plans)


async def test_disk_use_goes_down_and_nothing_of_the_run_is_in_any_file(
    store: SqliteStore, tmp_path: Path
) -> None:
    run = await ended_run(store, events=410, size=20_000)
    other = await ended_run(store, "run-2", events=20, size=1000)
    await store.compact(limit_bytes=1 << 20)
    before = (tmp_path / "db").stat().st_size
    assert before > 8_000_000
    await purge(store, run)
    assert (tmp_path / "db").stat().st_size < before / 10
    assert (tmp_path / "db-wal").stat().st_size == 0
    assert len(await store.events(other.no, after=0, limit_bytes=1 << 20)) == 21
    await purge(store, other)
    # While the file is open: what a reader could still find there is not only forgotten but overwritten.
    assert files_with(b"x" * 1000, tmp_path) == []


CANARY = b"canary-of-the-store"


@pytest.mark.parametrize("times", [1, 100, 3_000], ids=["in a page", "half a page", "many pages"])
async def test_what_was_deleted_is_in_no_file_after_a_scrub(
    store: SqliteStore, tmp_path: Path, times: int
) -> None:
    text = b'"%s"' % (CANARY * times)
    run = await make_run(store, request=text, call=CALL)
    for head in range(3):
        await store.append(batch(run, head, b"1", checkpoints=[Checkpoint("s", "", text)]))
    await store.answer_call(run.project_id, "key", status=200, answer=text)
    ended = batch(run, 3, b"2", status="completed", result=text, owed=[(4, text)])
    await store.append(ended)
    await store.expire_answers(before="9999", limit=10)
    assert files_with(CANARY, tmp_path) == ["db-wal"], "the log has pages as they were"
    assert await store.scrub()
    assert files_with(CANARY, tmp_path) == []
    assert await store.scrub(), "nothing to do"


async def test_a_reader_in_the_way_of_a_scrub_only_puts_it_off(store: SqliteStore, tmp_path: Path) -> None:
    await run_with(store, b"1", status="completed", result=b'"%s"' % CANARY)
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM run").fetchone()
        await store.expire_answers(before="9999", limit=10)
        assert not await store.scrub()
        await run_with(store, b"1", run_id="run-2")
    assert await store.scrub()
    assert files_with(CANARY, tmp_path) == []


async def test_copies_that_moving_rows_left_are_scrubbed_too(store: SqliteStore, tmp_path: Path) -> None:
    """Many runs at a time, with checkpoints of all sizes; one in ten runs stays, and its pages with it."""
    chance = random.Random(4)
    alive: list[RunRecord] = []
    for number in range(300):
        run = await make_run(store, f"run-{number}")
        text = b"plain" if number % 10 == 0 else CANARY
        if number % 10:
            alive.append(run)
        kept = [Checkpoint(f"s{s}", "", text * chance.choice([3, 10, 20, 45, 150])) for s in range(4)]
        await store.append(batch(run, 0, b"1", checkpoints=kept))
        if len(alive) > 30:
            over = alive.pop(chance.randrange(len(alive)))
            await store.append(batch(over, 1, b"2", status="completed", result=b"{}"))
    for run in alive:
        await store.append(batch(run, 1, b"2", status="completed", result=b"{}"))
    assert await store.scrub()
    assert files_with(CANARY, tmp_path) == []


@pytest.fixture(scope="module")
def known_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the known runs, which tests only read."""
    path = tmp_path_factory.mktemp("known") / "db"

    async def make() -> None:
        async with SqliteStore(path) as store:
            await known_runs(store)

    asyncio.run(make())
    return path


@pytest.mark.parametrize("text", [text for text, _ in CASES])
async def test_no_query_scans_a_table_or_sorts(known_file: Path, text: str) -> None:
    statements: list[str] = []
    async with SqliteStore(known_file) as store:
        query = await asked(store, text)
        await on_each_reader(store, lambda db: db.set_trace_callback(statements.append))
        await store.runs(1, query, limit=20)
        await store.count_runs(1, query, until_ms=round(NOW.timestamp() * 1000), buckets=10)
        await on_each_reader(store, lambda db: db.set_trace_callback(None))
        selects = {
            each
            for each in statements
            if each.startswith(("SELECT", "WITH")) and re.search(r"\brun(_error)?\b", each)
        }
        assert selects
        for select in selects:
            plan = await plan_of(store, select)
            assert any("USING" in line for line in plan), (select, plan)
            of_run = [line for line in plan if line.startswith(("SCAN run", "USE TEMP B-TREE"))]
            # The runs of a page, which are few, are put in order.
            assert not of_run or " WHERE id IN (" in select, (select, plan)
            # The groups are found without a look at a row.
            assert not select.startswith("WITH") or "".join(plan).count("run USING COVERING INDEX") == 6


async def test_a_broken_summary_hides_no_other_run(store: SqliteStore) -> None:
    await make_run(store, first_id(1), summary=b"\x00 no JSON")
    totals = b'"totals":{"tokens":{"total":5},"byModel":{"echo":{}}}'
    good = b'{"startedAt":"2025-01-01T00:00:00.000Z",%b}' % totals
    run = await make_run(store, first_id(2), summary=good)
    assert len((await store.runs(run.project_id, RunQuery(), limit=9)).runs) == 2
    for text in ("tokens:5", "model:echo", "duration:>1h", "-error:x tokens:5"):
        assert await all_pages(store, await asked(store, text), 9) == [first_id(2)], text
