"""The requests of runs that begin at once: read together, each told to whoever asked for it."""

import asyncio
from typing import Any, cast

from runglass.errors import StoreError
from runglass.store.postgres.connections import Connections
from runglass.store.postgres.run_creation import RunRequests


class Rows:
    """A database with the requests of the runs 1 to 9, which says what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.fault: StoreError | None = None

    async def read(self, work: Any) -> Any:
        return await work(self)

    async def fetch(self, _: str, runs: list[int]) -> list[tuple[int, bytes]]:
        self.asked.append(sorted(runs))
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        return [(run, b"request %d" % run) for run in runs if run < 10]


async def test_those_that_are_asked_for_in_one_turn_are_read_by_one_statement() -> None:
    rows = Rows()
    reads = RunRequests(cast(Connections, rows))
    asking = [asyncio.create_task(reads.read(run)) for run in (1, 2, 3, 10)]
    await asyncio.sleep(0)
    asking[0].cancel()
    assert await asyncio.gather(*asking[1:]) == [b"request 2", b"request 3", None]
    assert await reads.read(4) == b"request 4"
    assert rows.asked == [[1, 2, 3, 10], [4]]
