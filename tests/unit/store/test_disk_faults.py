"""The SQLite store on a disk that is full, fails or is locked: StoreError, nothing half, and it goes on."""

import asyncio
import errno
import os
import shutil
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from runglass.errors import PermanentStoreError, StoreError, StoreFull, ValueTooLarge
from runglass.store.records import NewRun
from runglass.store.sqlite.database_file import back_up, upgrade
from runglass.store.sqlite.migrations import add_functions, migrations
from runglass.store.sqlite.reserve import RESERVE_BYTES
from runglass.store.sqlite.store import SqliteStore
from tests.conformance.stores import batch
from tests.e2e.command import failing_disk
from tests.records import new_run, there


def a_run(run_id: str) -> NewRun:
    return new_run(1, "f", id=run_id)


async def limit_pages(store: SqliteStore, *, more: int) -> None:
    """Lets the file grow by so many pages and no further."""
    (pages,) = await store.connections.write(lambda db: db.execute("PRAGMA page_count").fetchone())
    limit = f"PRAGMA max_page_count = {pages + more}"
    await store.connections.write(lambda db: db.execute(limit).fetchone())


# Some MiB are left: no file gets larger than half of the reserve.
nearly_full_disk = partial(failing_disk, 0, most_bytes=RESERVE_BYTES // 2)


async def test_while_the_reserve_is_given_up_only_removals_are_written_and_then_all_goes_on(
    tmp_path: Path,
) -> None:
    reserve = tmp_path / "db-reserve"
    async with SqliteStore(tmp_path / "db") as store:
        assert reserve.stat().st_blocks * 512 >= RESERVE_BYTES, "a file with holes keeps no room"
        run, other = await store.create_run(a_run("run")), await store.create_run(a_run("other"))
        await store.append(batch(run, 0, b"1", status="failed"))
    # As a process leaves it that dies after it has given the reserve up.
    reserve.write_bytes(b"")
    with nearly_full_disk() as make_room:
        async with SqliteStore(tmp_path / "db") as store:
            # A server that was stopped starts there.
            assert (tmp_path / "db-wal").stat().st_size == 0, "a disk may have no room for anything at all"
            assert await store.hold_lease("p", until="2030-01-01T00:00:00.000Z", renew=False)
            await store.set_weights({1: 2.0})
            assert await store.span_cursors() == []
            refused = await asyncio.gather(
                store.create_run(a_run("new")),
                store.append(batch(other, 0, b"one")),
                store.check_write(),
                return_exceptions=True,
            )
            assert {type(each) for each in refused} == {StoreFull}
            assert reserve.stat().st_size == 0, "what the disk has left is for removals"
            assert await store.purge_runs([run.no])
            assert await store.purge_rows([run.no], limit_rows=100, limit_bytes=1 << 20)
            assert not await store.compact(limit_bytes=1 << 20)
            assert await store.run("run") is None
            with pytest.raises(StoreFull):
                await store.create_run(a_run("new"))
            make_room()
            await store.create_run(a_run("new"))
            assert reserve.stat().st_size == RESERVE_BYTES


async def test_a_removal_that_meets_a_full_disk_is_tried_again_on_the_reserve(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "db") as store:
        await limit_pages(store, more=0)
        reserve, tries = store.connections.reserve, 0

        def work(db: sqlite3.Connection) -> None:
            nonlocal tries
            tries += 1
            db.execute("INSERT INTO owed (run_no, seq, data) VALUES (0, ?, zeroblob(1000000))", (tries,))

        with pytest.raises(StoreFull):
            await store.connections.write(work)
        assert (tries, reserve.is_given_up) == (1, False)
        # One that cannot be given up is as none, as that of another user. A folder keeps root out as well.
        file = (tmp_path / "db-reserve").rename(tmp_path / "aside")
        (tmp_path / "db-reserve").mkdir()
        with pytest.raises(StoreFull):
            await store.connections.remove(work)
        assert (tries, reserve.is_given_up) == (2, False)
        (tmp_path / "db-reserve").rmdir()
        file.rename(tmp_path / "db-reserve")
        with pytest.raises(StoreFull):
            await store.connections.remove(work)
        assert (tries, reserve.is_given_up) == (4, True)
        await limit_pages(store, more=10_000)
        await store.connections.write(work)
        assert (tries, reserve.is_given_up) == (5, False)


async def test_a_disk_that_never_had_room_for_a_reserve_is_written_to_after_each_start(
    tmp_path: Path,
) -> None:
    with nearly_full_disk():
        for run_id in ("first", "second"):
            async with SqliteStore(tmp_path / "db") as store:
                await store.create_run(a_run(run_id))
                assert not (tmp_path / "db-reserve").exists()


async def test_a_file_that_gives_no_space_back_keeps_no_reserve(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "db")) as old:
        old.execute("CREATE TABLE from_before (x)")
    async with SqliteStore(tmp_path / "db"):
        assert not (tmp_path / "db-reserve").exists()


async def test_a_store_that_could_not_be_opened_can_be_opened_later(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"damaged" * 1000)
    store = SqliteStore(tmp_path / "db")
    with pytest.raises(StoreError, match="file is not a database"):
        await store.__aenter__()
    (tmp_path / "db").unlink()
    async with store:
        assert await store.projects() == []


async def test_the_folders_of_a_new_database_are_synced_up_to_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`prove power` shows what for: a name that has not been synced is gone with the power."""
    synced: list[os.stat_result] = []
    fsync = os.fsync

    def seen(descriptor: int) -> None:
        synced.append(os.fstat(descriptor))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", seen)
    async with SqliteStore(tmp_path / "new" / "data" / "db"):
        pass
    for folder, found in zip([tmp_path / "new" / "data", tmp_path / "new", tmp_path], synced, strict=False):
        assert os.path.samestat(folder.stat(), found)
    assert len(synced) >= 3


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        ([b"x" * 1001], ValueTooLarge),
        (["\ud800"], PermanentStoreError),
        ([1 << 70], PermanentStoreError),
        ([b"x"] * 100_000, StoreFull),
    ],
    ids=["too large", "no UTF-8", "no 64 bits", "no room on the disk"],
)
async def test_a_write_that_is_refused_fails_no_other_of_its_batch_and_says_whether_it_may_pass(
    tmp_path: Path, events: list[bytes], kind: type[StoreError]
) -> None:
    async with SqliteStore(tmp_path / "db") as store:
        run, other = await store.create_run(a_run("run")), await store.create_run(a_run("other"))
        await store.connections.write(lambda db: db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1000))
        await limit_pages(store, more=100)
        refused, taken = await asyncio.gather(
            store.append(batch(run, 0, *events)),
            store.append(batch(other, 0, b"fits")),
            return_exceptions=True,
        )
        assert type(refused) is kind
        assert taken is None
        assert there(await store.run("run")).head == 0


@pytest.mark.parametrize("way", ["backup", "upgrade"])
def test_a_disk_without_room_for_a_copy_is_told_as_such_and_has_none_of_it(tmp_path: Path, way: str) -> None:
    with closing(sqlite3.connect(tmp_path / "db")) as old:
        old.execute("CREATE TABLE large (data)")
        old.execute("INSERT INTO large VALUES (zeroblob(?))", (RESERVE_BYTES,))
        old.execute("PRAGMA user_version = 1")
        old.commit()
    with nearly_full_disk():
        if way == "backup":
            with pytest.raises(OSError, match="disk I/O error") as raised:
                back_up(tmp_path / "db", tmp_path / "copy")
            assert raised.value.errno == errno.EIO, "the disk may have room: only a file may not be so large"
        else:
            with pytest.raises(StoreError, match=r"copy '.*' cannot be written: .*migrate --no-backup`"):
                upgrade(tmp_path / "db")
    assert [file.name for file in tmp_path.iterdir()] == ["db"]


@pytest.mark.parametrize("is_old", [True, False])
def test_an_upgrade_where_the_disk_has_less_than_the_reserve_has_that_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_old: bool
) -> None:
    known = migrations()[: len(migrations()) - is_old]
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as database:
        add_functions(database)
        for migration in known:
            database.executescript(migration.sql)
        database.execute(f"PRAGMA user_version = {len(known)}")
    (tmp_path / "db-reserve").write_bytes(bytes(RESERVE_BYTES))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=RESERVE_BYTES - 1))
    upgrade(tmp_path / "db")
    assert (tmp_path / "db-reserve").stat().st_size == (0 if is_old else RESERVE_BYTES)
