"""The data as the kill left it, read from a copy: to open the files themselves would mend them."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from runglass.store.sqlite.store import SqliteStore


@asynccontextmanager
async def as_it_was_left(database: Path) -> AsyncIterator[SqliteStore]:
    """A store on a copy of the database file and its log, until the block ends. Nobody may write to them."""
    copy = database.with_name("copy.db")
    for suffix in ("", "-wal"):
        source = database.with_name(database.name + suffix)
        target = copy.with_name(copy.name + suffix)
        target.unlink(missing_ok=True)
        if source.exists():
            shutil.copyfile(source, target)
            target.chmod(0o600)
    async with SqliteStore(copy, synchronous="NORMAL") as store:
        yield store


async def faults(store: SqliteStore) -> list[str]:
    """What the database finds wrong with itself."""
    found = await store.connections.read(lambda db: db.execute("PRAGMA integrity_check").fetchall())
    return [f"the database is corrupt: {fault}" for (fault,) in found if fault != "ok"]
