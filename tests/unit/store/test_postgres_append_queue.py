"""When the appends of a process go together, told by the statements that reach the database."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from runglass.store.postgres.append import LONG_S, AppendQueue
from runglass.store.postgres.connections import Connections
from runglass.store.records import Append
from tests.fakes import in_virtual_time


class Held:
    """A database that answers a statement when it is told to; all that is asked for is written."""

    def __init__(self) -> None:
        self.statements: list[tuple[list[int], asyncio.Event]] = []
        self._sent = asyncio.Condition()

    async def repeat(self, work: Callable[["Held"], Awaitable[Any]], *, patience_s: float) -> Any:
        return await work(self)

    async def fetch(self, _: str, *values: Any) -> list[tuple[int]]:
        runs = [int(batch[0]) for batch in values[1]]
        self.statements.append((runs, answered := asyncio.Event()))
        async with self._sent:
            self._sent.notify_all()
        await answered.wait()
        return [(run,) for run in runs]

    async def has_sent(self, statements: int) -> None:
        async with self._sent:
            await self._sent.wait_for(lambda: len(self.statements) >= statements)

    def answer(self) -> None:
        for _, answered in self.statements:
            answered.set()


def queue() -> tuple[Held, AppendQueue]:
    held = Held()
    return held, AppendQueue(cast(Connections, held), patience_s=5.0)


@in_virtual_time
async def test_a_statement_that_takes_long_holds_up_no_other_run() -> None:
    held, appends = queue()
    first = asyncio.create_task(appends.append(append_to(1)))
    await held.has_sent(1)
    began_s = asyncio.get_running_loop().time()
    others = [asyncio.create_task(appends.append(append_to(run))) for run in (2, 1)]
    await held.has_sent(2)
    assert asyncio.get_running_loop().time() - began_s == pytest.approx(LONG_S)
    assert [runs for runs, _ in held.statements] == [[1], [2]]
    held.answer()
    await held.has_sent(3)
    held.answer()
    await asyncio.gather(first, *others)
    await appends.aclose()


def append_to(run_no: int) -> Append:
    return Append(run_no=run_no, head=0, fence=1, events=[b"{}"], status="running", summary=b"{}")
