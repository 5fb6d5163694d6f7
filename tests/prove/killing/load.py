"""The load of a server or a cluster, from the first call to the end of the last run; what it adds up to."""

import asyncio
from collections import Counter
from typing import Self

from runglass.log.trace import TERMINAL
from tests.laws.law import require
from tests.prove.killing.callers import Callers
from tests.prove.killing.laws import Laws
from tests.prove.killing.line import Book, Line, all_ended, listed_runs

END_LIMIT_S = 90.0
"""How long runs and callers may take to come to an end once nothing breaks any more."""


class Load:
    """Callers and watchers of a server, until the block ends; a caller pauses for `pause_s` in the mean."""

    def __init__(
        self, line: Line, book: Book, place: str, *, callers: int, watchers: int, pause_s: float = 0.0
    ) -> None:
        self._line = line
        self._book = book
        self._place = place
        self._counts = callers, watchers
        self._callers = Callers(line, book, seed=place, pause_s=pause_s)

    async def __aenter__(self) -> Self:
        callers, watchers = self._counts
        self._calling = [asyncio.create_task(self._callers.call()) for _ in range(callers)]
        self._watching = [asyncio.create_task(self._callers.watch()) for _ in range(watchers)]
        return self

    async def __aexit__(self, *exc: object) -> None:
        tasks = [*self._calling, *self._watching]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def check(self) -> None:
        """Raises what a caller has found out."""
        require(self._book.lies, self._place)
        for task in (*self._calling, *self._watching):
            if task.done():
                task.result()

    async def end(self) -> None:
        """Returns when every caller has its answer and nothing goes on any more. Raises AssertionError."""
        self._callers.closing.set()
        try:
            async with asyncio.timeout(END_LIMIT_S):
                await asyncio.wait(self._calling)
                await all_ended(self._line)
                paused = await listed_runs(self._line, status="paused")
                followed = {run_id for run_id, readers in self._callers.watched.items() if readers}
                # Who follows a run that stays paused follows it for ever.
                if not followed & paused.keys():
                    await asyncio.wait(self._watching)
        except TimeoutError:
            async with asyncio.timeout(END_LIMIT_S):
                runs = (await listed_runs(self._line)).items()
            ids = {asked.tag: asked.run_id for asked in self._book.asked.values()}
            names = [task.get_name() for task in (*self._calling, *self._watching) if not task.done()]
            late = [f"not everything came to an end within {END_LIMIT_S:g} s once all was well"]
            late += [f"a caller still {name}, run {ids.get(name[-36:])}" for name in names]
            odd = [f"{run_id} is {run['status']}" for run_id, run in runs if run["status"] not in TERMINAL]
            require([*late, *odd], self._place)
        self.check()


def count_round(seen: Counter[str], laws: Laws) -> None:
    """Adds the runs of one round, those that are not settled, and what their callers were sent."""
    for run_id, log in laws.logs.items():
        if run_id not in laws.settled:
            seen[f"runs: {log.status}"] += 1
            seen["events: stored"] += len(log.events)
            seen["outside: attempts lost and told as WORKER_LOST"] += len(log.lost)
    seen["events: sent to readers"] += laws.book.events
    seen["events: resumes of readers"] += laws.book.resumes
    seen["outside: calls sent again by their callers"] += laws.book.repeats
    seen["outside: calls of a model, each by an attempt of its own"] += laws.outside.total
