"""Data folders with very many runs: one real run, and copies of its row made by SQL."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import uvloop
from uuid_utils import uuid7

from bench import flows
from bench.stage import add_key
from runglass.config.settings import Settings
from runglass.runtime.composition import open_runtime

FAILED_EACH = 100
"""One run of so many is a failed one."""


class Listed(NamedTuple):
    """A folder with runs and a key to read them. `run_id` is more than a row, `middle` of middling age."""

    folder: Path
    key: str
    run_id: str
    middle: str


def make_listed(folder: Path, runs: int) -> Listed:
    """Fills an empty folder with so many runs."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        made = runner.run(_one_run(folder))
    with closing(sqlite3.connect(Settings(data=folder).database)) as connection, connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info (run)")]
        others = ", ".join(name for name in columns if name not in ("no", "id", "status", "summary"))
        (summary,) = connection.execute("SELECT summary FROM run WHERE id = ?", (made.run_id,)).fetchone()
        connection.executemany(
            f"INSERT INTO run (id, status, summary, {others})"
            f" SELECT ?, ?, ?, {others} FROM run WHERE id = '{made.run_id}'",
            _copies(made.run_id, summary, runs - 1),
        )
        (middle,) = connection.execute(
            "SELECT id FROM run ORDER BY no LIMIT 1 OFFSET ?", (runs // 2,)
        ).fetchone()
    return made._replace(middle=middle)


def _copies(run_id: str, summary: bytes, count: int) -> Iterator[tuple[str, str, bytes]]:
    failed = summary.replace(b'"completed"', b'"failed"')
    for number in range(count):
        new = str(uuid7())
        fails = number % FAILED_EACH == 0
        data = (failed if fails else summary).replace(run_id.encode(), new.encode())
        yield new, "failed" if fails else "completed", data


async def _one_run(folder: Path) -> Listed:
    async with open_runtime(Settings(data=folder, synchronous="NORMAL")) as runtime:
        project = await flows.push(runtime, flows.LOOP, flows.WAIT)
        run_id = await flows.run(runtime, project, "loop", flows.loop_of(20))
        return Listed(folder, await add_key(runtime), run_id, run_id)
