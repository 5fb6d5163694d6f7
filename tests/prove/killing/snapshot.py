"""The data as the kill left it, read from a copy: to open the files themselves would mend them."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from runglass.store.sqlite.database_file import check
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
    """What `runglass data check --all` finds wrong."""
    path = store.connections.path
    found = await asyncio.to_thread(check, path, every_run=True, tell=lambda runs, of: None)
    return found.problems
