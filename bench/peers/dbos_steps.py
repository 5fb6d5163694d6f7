"""No-op steps in DBOS, in one workflow or in several at once.

`python -m bench.peers.dbos_steps FOLDER NORMAL|FULL`, on SQLite. On PostgreSQL: `dbos_worker.py`.
"""

import asyncio
import sqlite3
import sys
import time
from pathlib import Path

import sqlalchemy
from dbos import DBOS, DBOSConfig

from bench.answering import Message, answer


async def _work() -> None:
    return None


work = DBOS.step()(_work)


async def _chain(steps: int) -> int:
    for _ in range(steps):
        await work()
    return steps


chain = DBOS.workflow()(_chain)


async def together(runs: int, steps: int) -> None:
    handles = [await DBOS.start_workflow_async(chain, steps) for _ in range(runs)]
    for handle in handles:
        await handle.get_result(polling_interval_sec=0.01)


def main() -> None:
    database = _own_file(Path(sys.argv[1]), sys.argv[2])
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": f"sqlite:///{database}",
        "log_level": "ERROR",
        "run_admin_server": False,
    }
    DBOS(config=config)
    DBOS.launch()
    runner = asyncio.Runner()

    def measure(message: Message) -> Message:
        runs, steps = message.get("runs", 1), message["steps"]
        before = _size(database)
        began_s = time.perf_counter()
        runner.run(together(runs, steps))
        spent_ms = (time.perf_counter() - began_s) * 1000
        return {"ms": spent_ms, "bytes_per_step": (_size(database) - before) / steps / runs}

    answer(measure)


def _own_file(folder: Path, synchronous: str) -> Path:
    """The path of its SQLite file, which it will use with the settings that we use."""
    folder.mkdir()

    def set_up(connection: sqlite3.Connection, _: object) -> None:
        # By default it keeps SQLite's rollback journal, which is slower: the peer gets what we have.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")

    sqlalchemy.event.listen(sqlalchemy.pool.Pool, "connect", set_up)
    return folder / "dbos.db"


def _size(database: Path) -> int:
    """Bytes of its file."""
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return database.stat().st_size


if __name__ == "__main__":
    main()
