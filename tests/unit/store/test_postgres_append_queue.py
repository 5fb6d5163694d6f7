"""When the appends of a process go together, told by the statements that reach the database."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from runglass.store.postgres.append import LONG_S, WORTH_RUNS, WRITERS, AppendQueue
from runglass.store.postgres.connections import Connections
from runglass.store.records import Append
from tests.fakes import in_virtual_time, let_time_pass


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
async def test_what_comes_during_a_statement_goes_together_in_the_next() -> None:
    held, appends = queue()
    first = asyncio.create_task(appends.append(append_to(1)))
    await held.has_sent(1)
    others = [asyncio.create_task(appends.append(append_to(run))) for run in (2, 3, 1)]
    await asyncio.sleep(0)
    held.answer()
    await first
    await held.has_sent(2)
    held.answer()
    await asyncio.gather(*others)
    assert [runs for runs, _ in held.statements] == [[1], [2, 3, 1]]
    await appends.aclose()


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


@in_virtual_time
async def test_many_runs_have_a_few_statements_at_a_time() -> None:
    held, appends = queue()
    tasks = [asyncio.create_task(appends.append(append_to(0)))]
    await held.has_sent(1)
    for number in range(1, WRITERS + 2):
        runs = range(number * WORTH_RUNS, (number + 1) * WORTH_RUNS)
        tasks += [asyncio.create_task(appends.append(append_to(run))) for run in runs]
        await asyncio.sleep(0)
    await held.has_sent(WRITERS)
    await let_time_pass(LONG_S * 2)
    assert [len(runs) for runs, _ in held.statements] == [1, *[WORTH_RUNS] * (WRITERS - 1)]
    held.answer()
    await held.has_sent(WRITERS + 1)
    held.answer()
    await asyncio.gather(*tasks)
    assert sum(len(runs) for runs, _ in held.statements) == 1 + WORTH_RUNS * (WRITERS + 1)
    await appends.aclose()


def append_to(run_no: int) -> Append:
    return Append(run_no=run_no, head=0, fence=1, events=[b"{}"], status="running", summary=b"{}")
