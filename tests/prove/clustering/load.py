"""The load of a cluster, from the first call to the end of the last run, and what servers then say of it."""

import asyncio
from collections.abc import Iterable

from runglass.log.trace import TERMINAL
from tests.prove.clustering.cluster import Cluster, Servers
from tests.prove.killing.book import Book
from tests.prove.killing.callers import Callers
from tests.prove.killing.line import Line
from tests.prove.killing.reading import all_ended, disagreements, listed_runs

CALLERS, WATCHERS, PAUSE_S = 16, 4, 0.1
"""A load that two processors bear beside the faults: a cluster that is only slow says nothing."""
END_LIMIT_S = 90.0
"""How long runs and callers may take to come to an end once nothing breaks any more."""
READ = 30
"""Runs of a round that are read from every server; the data of all is checked."""


class Load:
    """Callers and watchers of a cluster, until the block ends."""

    def __init__(self, running: Cluster, book: Book, place: str) -> None:
        self._running = running
        self._book = book
        self._place = place
        self._callers = Callers(Servers(), running.line, book, seed=place, pause_s=PAUSE_S)

    async def __aenter__(self) -> "Load":
        callers = self._callers
        self._calling = [asyncio.create_task(callers.call()) for _ in range(CALLERS)]
        self._watching = [asyncio.create_task(callers.watch()) for _ in range(WATCHERS)]
        return self

    async def __aexit__(self, *exc: object) -> None:
        tasks = [*self._calling, *self._watching]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def check(self) -> None:
        """Raises what a caller has found out."""
        judge(self._book.lies, self._place)
        for task in (*self._calling, *self._watching):
            if task.done():
                task.result()

    async def end(self) -> None:
        """Returns when every caller has its answer and nothing goes on any more. Raises AssertionError."""
        callers, line = self._callers, self._running.line
        await self._running.all_up()
        callers.closing.set()
        try:
            async with asyncio.timeout(END_LIMIT_S):
                await asyncio.wait(self._calling)
                await all_ended(line)
                paused = await listed_runs(line, status="paused")
                followed = {run_id for run_id, readers in callers.watched.items() if readers}
                # Who follows a run that stays paused follows it for ever.
                if not followed & paused.keys():
                    await asyncio.wait(self._watching)
        except TimeoutError:
            async with asyncio.timeout(END_LIMIT_S):
                runs = await listed_runs(line)
            tasks = [*self._calling, *self._watching]
            ids = {asked.tag: asked.run_id for asked in self._book.asked.values()}
            odd = [
                f"{run_id} is {run['status']}"
                for run_id, run in runs.items()
                if run["status"] not in TERMINAL
            ]
            names = [task.get_name() for task in tasks if not task.done()]
            judge(
                [
                    f"not everything came to an end within {END_LIMIT_S:g} s once all was well",
                    *(f"a caller still {name}, run {ids.get(name[-36:])}" for name in names),
                    *odd,
                ],
                self._place,
            )
        self.check()


async def read_everywhere(running: Cluster, book: Book, place: str, *, of_before: bool = False) -> None:
    """Every server must tell the same of the last runs. Raises AssertionError."""
    known = [asked for asked in book.asked.values() if asked.run_id is not None][-READ:]
    for server in running.servers:
        async with running.client_of(server.process.base_url) as http:
            lies = await disagreements(Line(server.process, http), known, of_before=of_before)
            judge(lies, f"{place}, {server.name}")


def judge(lies: Iterable[str], place: str) -> None:
    """Raises AssertionError with the first lies, if there are any."""
    found = list(lies)
    if found:
        raise AssertionError("\n".join([f"{place}: {len(found)} lies", *found[:20]]))
