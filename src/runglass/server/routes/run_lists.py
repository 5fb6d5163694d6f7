"""The runs of a project as lists: pages of them by query, how many there were when, and what changes."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Annotated, NamedTuple, TypeVar, Unpack

import msgspec
from msgspec import Meta
from starlette.responses import Response

from runglass.engine.scheduling.pacing import paced_read
from runglass.errors import api_error
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import JSON, Parameter
from runglass.server.http.response_stream import StreamedResponse, event_stream
from runglass.server.requests.body import answer
from runglass.server.requests.pagination import cursor_of_position, position_of
from runglass.server.requests.run_query import RunFilters, read_run_query
from runglass.server.security.revocation import while_awaited
from runglass.server.services.run_content import listed
from runglass.store.list_records import ChangedRun
from runglass.support.clock import iso_ms
from runglass.tails.run_list import ListPage, follow_runs
from runglass.wire.run_api import RunHistogram, RunsCreated
from runglass.wire.sse import frame, position_frame

Result = TypeVar("Result")

BUCKETS = Parameter(
    "buckets", Annotated[int, Meta(ge=10, le=200)], "a number of intervals from 10 to 200", default=60
)

IS_ROUND = Parameter(
    "round", bool, "true or false: whether intervals have a round length", default=False, argument="is_round"
)
_S, _M, _H = 1000, 60_000, 3_600_000
ROUND_MS = (
    *(1, 5, 10, 50, 100, 500),
    *(number * _S for number in (1, 5, 10, 30)),
    *(number * _M for number in (1, 5, 10, 30)),
    *(number * _H for number in (1, 3, 6, 12, 24, 7 * 24, 28 * 24, 364 * 24)),
)


async def runs(
    request: ApiRequest, limit: int, cursor: str | None, **filters: Unpack[RunFilters]
) -> Response:
    """The runs of the key's project, newest first; `nextCursor` is null on the last page.

    `q` is a query in the language of docs/queries.md; the other parameters narrow it down. `since` and
    `until` limit the time at which a run was created. A page of a query that takes long to search for may
    have fewer runs than `limit`, even none, and a `nextCursor`: the next request goes on from there. A stream
    of the list after `lastChange` has every change that the page has not. Unknown parameters are refused.
    """
    query = await read_run_query(request, filters)
    after = None if cursor is None else position_of(cursor)
    search = partial(
        request.services.runtime.store.runs, request.auth.project_id, query, after=after, limit=limit
    )
    found = await _while_awaited(request, search)
    following = None if found.position is None else cursor_of_position(found.position)
    body = b'{"runs":[%b],"nextCursor":%b,"lastChange":%d}' % (
        b",".join([listed(run) for run in found.runs]),
        msgspec.json.encode(following),
        found.last_change,
    )
    return Response(body, media_type=JSON)


async def histogram(
    request: ApiRequest, buckets: int, is_round: bool, **filters: Unpack[RunFilters]
) -> Response:
    """How many runs were created in each of `buckets` intervals, and how many of these have failed.

    The intervals have one length, from `since`, or else the oldest run, to `until`, or else now. With
    `round` that is a length such as 10 s, 5 min or 1 h, and there may be fewer: the first interval begins at
    a multiple of it, and the last one may go beyond the end. Where there are too many runs to count in time,
    those created before `countedFrom` are not in it.
    """
    query = await read_run_query(request, filters)
    now_ms = time.time_ns() // 1_000_000 + 1
    count = partial(
        request.services.runtime.store.count_runs,
        request.auth.project_id,
        query,
        until_ms=now_ms,
        buckets=buckets,
        lengths_ms=ROUND_MS if is_round else (),
    )
    counts = await _while_awaited(request, count)
    pairs = zip(counts.runs, counts.failed, strict=True)
    return answer(
        RunHistogram(
            from_=iso_ms(counts.from_ms),
            to=iso_ms(counts.from_ms + len(counts.runs) * counts.bucket_ms),
            bucket_ms=counts.bucket_ms,
            buckets=[RunsCreated(runs=created, failed=failed) for created, failed in pairs],
            counted_from=None if counts.counted_from_ms is None else iso_ms(counts.counted_from_ms),
        )
    )


async def stream(
    request: ApiRequest, after: str | None, last_event_id: str | None, **filters: Unpack[RunFilters]
) -> StreamedResponse:
    """Each run of the query when it is created and when its status changes, for as long as the caller stays.

    Without `Last-Event-ID` or `after`, from now on; with one of them, which is the `id` of an event or the
    `lastChange` of a list, every change since then. A run that changed several times meanwhile comes once, as
    it is now. A run that changed and does not meet the query, though it may have before, is a `gone`.
    """
    query = await read_run_query(request, filters)
    runtime, project_id = request.services.runtime, request.auth.project_id
    newest = await runtime.store.last_change(project_id)
    start = last_event_id or after
    seen = newest if not start else int(start)
    if seen > newest:
        message = f"the runs of the project have had no change {seen} yet; the last one is {newest}"
        raise api_error("INVALID_REQUEST", message)
    pages = follow_runs(
        runtime.store,
        runtime.bus,
        project_id,
        query,
        after=seen,
        idle_s=runtime.settings.ping_s,
        poll_s=runtime.settings.tail_poll_s,
        in_turn=partial(paced_read, project_id),
    )
    return event_stream(
        _framed(pages, after=seen), open_responses=request.services.open_responses, key_id=request.auth.id
    )


async def _while_awaited(request: ApiRequest, read: Callable[[], Awaitable[Result]]) -> Result:
    """What is read in the project's turn. A caller who leaves before that is not read for."""
    reading = paced_read(request.auth.project_id, read)
    return await while_awaited(request, None, reading, otherwise="nothing was changed")


class _RunFrames(NamedTuple):
    """A part of the stream; nothing where nothing has changed for a while."""

    frames: bytes


async def _framed(pages: AsyncGenerator[ListPage, None], *, after: int) -> AsyncGenerator[_RunFrames, None]:
    """The pages as parts of a stream, which can be resumed from its first moment on, after number `after`."""
    yield _RunFrames(position_frame(after))
    last = after
    async with aclosing(pages):
        async for page in pages:
            parts = [_frame(each) for each in page.changed]
            # What concerns others moves the position, too, or whoever comes back would go through it again.
            if page.last != last and (not parts or page.changed[-1].number != page.last):
                parts.append(position_frame(page.last))
            last = page.last
            yield _RunFrames(b"".join(parts))


def _frame(changed: ChangedRun) -> bytes:
    if changed.listing is None:
        return frame(changed.number, "gone", msgspec.json.encode({"id": changed.run_id}))
    return frame(changed.number, "run", listed(changed.listing))
