"""Follow a run's log: replay what the store holds, then wait for more, until the run has ended.

The order matters: a tail listens before it reads, so nothing that is committed between the two is missed, and
a wake-up that is lost costs one poll interval. The store is the only source of events.
"""

from collections.abc import AsyncGenerator, Collection

from runglass.bus.base import Bus
from runglass.events import TERMINAL_EVENTS, event_type_of
from runglass.store.base import RunRecord, Store

PAGE_BYTES = 64 * 1024
"""About how much a tail reads at a time, and so the memory that a slow reader costs."""

Page = list[tuple[int, bytes]]


async def tail(
    store: Store,
    bus: Bus,
    run: RunRecord,
    *,
    after: int = 0,
    poll_s: float = 2.0,
    until: Collection[str] = TERMINAL_EVENTS,
) -> AsyncGenerator[Page, None]:
    """Pages of `(seq, event as JSON)` after seq `after`, up to the first event of a type in `until`.

    An empty page says that nothing has come yet, at least every `poll_s` seconds. Ends at once if the run has
    ended and `after` is its last event or beyond. Raises StoreError.
    """
    # Whether an event after `after` is sure to come. If it is, the log alone tells everything.
    more = after < run.head
    async with bus.listen(run.id) as listener:
        while True:
            if not more:
                current = await store.run(run.id)
                if current is None or (current.ended and current.head <= after):
                    return
                more = after <= current.head
            page = await store.events(run.no, after=after, limit_bytes=PAGE_BYTES)
            end = next((n for n, (_, data) in enumerate(page, 1) if event_type_of(data) in until), None)
            yield page[:end]
            if end is not None:
                return
            if page:
                after = page[-1][0]
            if sum(len(data) for _, data in page) < PAGE_BYTES:
                await listener.wait(poll_s)
