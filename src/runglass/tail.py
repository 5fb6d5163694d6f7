"""Follow a run's log: replay what the store holds, then wait for more, until the run has ended.

The order matters: a tail listens before it reads, so nothing that is committed between the two is missed, and
a wake-up that is lost costs one poll interval. The store is the only source of events.
"""

from collections.abc import AsyncGenerator

from runglass.bus.base import Bus
from runglass.events import TERMINAL_EVENTS, event_type_of
from runglass.store.base import RunRecord, Store

PAGE_BYTES = 64 * 1024
"""About how much a tail reads at a time, and so the memory that a slow reader costs."""

Page = list[tuple[int, bytes]]


async def tail(
    store: Store, bus: Bus, run: RunRecord, *, after: int = 0, poll_s: float = 2.0
) -> AsyncGenerator[Page, None]:
    """Pages of `(seq, event as JSON)` after seq `after`, the last of them ending with the terminal event.

    An empty page says that nothing has come yet, at least every `poll_s` seconds. Ends at once if `after` is
    the terminal event or beyond. Raises StoreError.
    """
    async with bus.listen(run.id) as listener:
        while True:
            page = await store.events(run.no, after=after, limit_bytes=PAGE_BYTES)
            if page:
                after, last = page[-1]
                yield page
                if event_type_of(last) in TERMINAL_EVENTS:
                    return
                continue
            current = await store.run(run.id)
            if current is None or (current.head <= after and current.ended):
                return
            if current.head > after:
                continue
            await listener.wait(poll_s)
            yield []
