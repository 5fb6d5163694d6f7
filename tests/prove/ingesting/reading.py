"""What a store has of recorded traces, against what was sent."""

from collections.abc import AsyncIterator, Mapping

from runglass.log.events import RunStarted, StepRecorded, decode_event
from runglass.store.base import Store
from runglass.store.records import Project, RunRecord
from tests.prove.ingesting.bodies import span_id, trace_id

PAGE_BYTES = 4 << 20
AT_ONCE = 500


async def faults(store: Store, project: Project, sizes: Mapping[int, int]) -> list[str]:
    """What is missing of these traces, was stored twice, or was taken for a run that somebody executes."""
    found: list[str] = []
    traces = list(sizes)
    for first in range(0, len(traces), AT_ONCE):
        some = traces[first : first + AT_ONCE]
        newest = await store.recorded_traces(project.id, [trace_id(trace) for trace in some])
        for trace in some:
            stored = newest.get(trace_id(trace))
            if stored is None or stored.run is None:
                found.append(f"nothing is stored of trace {trace}")
            else:
                found += [
                    f"trace {trace}: {fault}" async for fault in _of_trace(store, stored.run, sizes[trace])
                ]
    return found


async def _of_trace(store: Store, newest: RunRecord, size: int) -> AsyncIterator[str]:
    """The faults of one trace, of all its runs."""
    seen: dict[str, int] = {}
    run: RunRecord | None = newest
    while run is not None:
        if run.claims or run.fence != 1:
            yield f"run {run.id} was claimed"
        first_id, at = None, 0
        async for seq, data in _events(store, run):
            event = decode_event(data)
            at += 1
            if seq != at:
                yield f"run {run.id} has event {seq} at {at}"
            if isinstance(event, RunStarted):
                first_id = event.continues
            elif isinstance(event, StepRecorded):
                seen[event.span.span_id] = seen.get(event.span.span_id, 0) + 1
        if at != run.head:
            yield f"run {run.id} has {at} events and says {run.head}"
        run = None if first_id is None else await store.run(first_id)
    expected = {span_id(number) for number in range(1, size + 1)}
    if missing := expected - seen.keys():
        yield f"{len(missing)} of {size} spans are missing, such as {min(missing)}"
    if more := seen.keys() - expected:
        yield f"{len(more)} spans were never sent, such as {min(more)}"
    if twice := [each for each, times in seen.items() if times > 1]:
        yield f"{len(twice)} spans were stored more than once, such as {min(twice)}"


async def _events(store: Store, run: RunRecord) -> AsyncIterator[tuple[int, bytes]]:
    after = 0
    while page := await store.events(run.no, after=after, limit_bytes=PAGE_BYTES):
        for seq, data in page:
            yield seq, data
        after = page[-1][0]
