"""The runs of a project as lists: pages of them by query, how many there were when, and what changes.

What a request asks for is in the query language and in the parameters beside it; both become one `RunQuery`.
Flows are named by slug or id in both; here they are looked up.
"""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Annotated, Literal, NamedTuple, TypedDict, TypeVar, Unpack

import msgspec
from msgspec import Meta
from starlette.responses import Response

from runglass.errors import api_error
from runglass.limits.pace import paced_read
from runglass.log.trace import RunStatus
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import JSON, Parameter
from runglass.server.http.open_responses import while_awaited
from runglass.server.http.response_stream import StreamedResponse, event_stream
from runglass.server.requests.body import answer
from runglass.server.requests.pagination import SINCE, UNTIL, cursor_of_position, position_of, since_epoch_ms
from runglass.server.services.run_content import summary_of
from runglass.store.records import ChangedRun, RunListing
from runglass.support.clock import iso_ms
from runglass.tails.run_list import ListPage, follow_runs
from runglass.wire.query import Range, RunQuery, Term
from runglass.wire.query_parser import parse_run_query, query_error
from runglass.wire.run_api import RunHistogram, RunsCreated
from runglass.wire.sse import frame, position_frame

Result = TypeVar("Result")

QUERY = Parameter(
    "q", str, "a query such as `status:failed flow:grade-3 since:24h` (see docs/queries.md)", argument="query"
)
STATUS = Parameter("status", RunStatus, "pending, running, paused, completed, failed or cancelled")
FLOW_ID = Parameter("flow_id", str, "the `flowId` of a flow")
SLUG = Parameter("flow", str, "the slug of a flow, instead of its id")

FILTERS = (QUERY, FLOW_ID, SLUG, STATUS, SINCE, UNTIL)
"""The parameters that say which runs are meant."""

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


class RunFilters(TypedDict):
    """The values of `FILTERS` in a request."""

    query: str | None
    flow_id: str | None
    flow: str | None
    status: RunStatus | None
    since: str | None
    until: str | None


async def runs(
    request: ApiRequest, limit: int, cursor: str | None, **filters: Unpack[RunFilters]
) -> Response:
    """The runs of the key's project, newest first; `nextCursor` is null on the last page.

    `q` is a query in the language of docs/queries.md; the other parameters narrow it down. `since` and
    `until` limit the time at which a run was created. A page of a query that takes long to search for may
    have fewer runs than `limit`, even none, and a `nextCursor`: the next request goes on from there. A stream
    of the list after `lastChange` has every change that the page has not. Unknown parameters are refused.
    """
    query = await _run_query(request, filters)
    store, after = request.services.runtime.store, position_of(cursor)
    search = partial(store.runs, request.auth.project_id, query, after=after, limit=limit)
    found = await _while_awaited(request, search)
    body = b'{"runs":[%b],"nextCursor":%b,"lastChange":%d}' % (
        b",".join([_listed(run) for run in found.runs]),
        msgspec.json.encode(cursor_of_position(found.position)),
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
    query = await _run_query(request, filters)
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
    query = await _run_query(request, filters)
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
    return event_stream(request, _framed(pages, after=seen))


async def _while_awaited(request: ApiRequest, read: Callable[[], Awaitable[Result]]) -> Result:
    """What is read in the project's turn. A caller who leaves before that is not read for."""
    reading = paced_read(request.auth.project_id, read)
    return await while_awaited(request, None, reading, otherwise="nothing was changed")


async def _run_query(request: ApiRequest, filters: RunFilters) -> RunQuery:
    """The query of all filters together.

    Raises INVALID_REQUEST, and FLOW_NOT_FOUND for an unknown flow in the parameter `flow`.
    """
    store = request.services.runtime.store
    typed = parse_run_query(filters["query"] or "", now=store.clock.now())
    flow_id, slug = filters["flow_id"], filters["flow"]
    if slug is not None:
        if flow_id is not None:
            raise api_error("INVALID_REQUEST", "`flow` and `flow_id` exclude each other; send one of them")
        flow = await store.find_flow(request.auth.project_id, slug)
        if flow is None:
            hint = await request.services.runtime.policy.near_flow(request.auth.project_id, slug)
            raise api_error("FLOW_NOT_FOUND", f"there is no flow {slug!r} in the project of this key{hint}")
        flow_id = flow.id
    filtered = RunQuery.of(
        flow_id=flow_id,
        statuses=() if filters["status"] is None else (filters["status"],),
        created=[*_bound(filters["since"], "since"), *_bound(filters["until"], "until")],
    )
    return filtered.plus(*[await _with_flow_ids(request, term) for term in typed.terms]).listed()


def _bound(time: str | None, name: Literal["since", "until"]) -> Sequence[Range]:
    if time is None:
        return ()
    at_ms = since_epoch_ms(time, name=name)
    return [Range(low=at_ms) if name == "since" else Range(high=at_ms, high_open=True)]


async def _with_flow_ids(request: ApiRequest, term: Term) -> Term:
    if term.field != "flow":
        return term
    store, project_id = request.services.runtime.store, request.auth.project_id
    ids: list[str] = []
    for name in term.words:
        flow = await store.find_flow(project_id, name) or await store.flow(name)
        if flow is None or flow.project_id != project_id:
            hint = await request.services.runtime.policy.near_flow(project_id, name)
            problem = f"the project has no flow {name!r:.100}{hint}"
            raise query_error(term.position, term.source, problem)
        ids.append(flow.id)
    return term._replace(words=tuple(ids))


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
    return frame(changed.number, "run", _listed(changed.listing))


def _listed(run: RunListing) -> bytes:
    """The run's `flowRun`, or what its columns say where that cannot be read."""
    summary = summary_of(run)
    return msgspec.json.encode(summary) if summary.unreadable else run.summary
