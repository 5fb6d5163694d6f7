"""Follow the runs of a project: those that were created or changed their status, in the order of that.

What is stored says all: each change has a number, and a tail reads on from the last one that it has had. Of a
run that changed several times since then only the newest state comes. A tail holds one page at most; it
listens before it reads, so that a change between the two is not missed, and a wake-up that is lost costs one
poll interval. Who follows, and over what, is not known here.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import NamedTuple, TypeAlias

from runglass.bus.base import Bus, runs_of
from runglass.store.records import ChangedRun
from runglass.store.run_lists import RunLists
from runglass.wire.query import RunQuery

PAGE_RUNS = 50
"""With summaries of some kilobytes, about what a tail of one run reads at a time."""

Read: TypeAlias = Callable[[], Awaitable[list[ChangedRun]]]


class ListPage(NamedTuple):
    """Runs that have changed, up to the change with the number `last`; none where none has for a while."""

    changed: list[ChangedRun]
    last: int


async def follow_runs(
    store: RunLists,
    bus: Bus,
    project_id: int,
    query: RunQuery,
    *,
    after: int,
    idle_s: float,
    poll_s: float,
    pause_s: float = 0.1,
    in_turn: Callable[[Read], Awaitable[list[ChangedRun]]] = lambda read: read(),
) -> AsyncGenerator[ListPage, None]:
    """Pages of the changes after number `after`, and an empty page for each `idle_s` seconds without one.

    Each read goes through `in_turn`, which may wait. After it comes a pause: tails of a project in which many
    runs go on cost a bounded part of the store. Never ends by itself. A page has only runs that meet the
    query, or may have met it before. Raises StoreError.
    """
    loop = asyncio.get_running_loop()
    async with bus.listen(runs_of(project_id)) as listener:
        yielded_at = loop.time()
        while True:
            read = partial(store.changed_runs, project_id, query, after=after, limit=PAGE_RUNS)
            changed = await in_turn(read)
            if changed:
                after = changed[-1].number
            seen = [each for each in changed if each.could_meet]
            if changed or loop.time() - yielded_at >= idle_s:
                yield ListPage(seen, after)
                yielded_at = loop.time()
            if len(changed) == PAGE_RUNS:
                continue
            if changed:
                await asyncio.sleep(pause_s)
            await listener.wait(min(poll_s, max(0.0, yielded_at + idle_s - loop.time())))
