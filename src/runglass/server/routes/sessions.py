"""Sessions: the runs that share an `X-Session-Id`, with the snapshots of each step.

A response is made run by run and holds at most one page of them in memory; a single run that is larger than a
page is sent while it is read. `sessions` stands where other paths have the name of an organisation, so flows
of an organisation of that name cannot be reached.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.responses import Response
from starlette.types import ASGIApp

from runglass.errors import RunPurged, api_error
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import JSON, Parameter
from runglass.server.http.response_stream import json_stream
from runglass.server.requests.pagination import cursor_of_position, position_of
from runglass.server.requests.parameters import checked_uuid
from runglass.server.services.session_runs import SessionFlows, session_run
from runglass.store.records import ListPosition, RunRecord
from runglass.store.run_logs import RunLog

PAGE_BYTES = 8_000_000
"""The most bytes of the runs in one response, unless it has a single run."""
RUNS_AT_ONCE = 20

LIMIT = Parameter(
    "limit",
    Annotated[int, Meta(ge=1, le=100)],
    "most runs of a page, from 1 to 100; by default as many as fit",
)


async def session(request: ApiRequest, session_id: str, limit: int | None, cursor: str | None) -> ASGIApp:
    """The session's runs, oldest first, with the latest attempt of each step and loop iteration.

    Where a run ended in a container, the last of its steps is that container, with the run's result. A
    session comes whole up to 8 MB; where the answer has a `nextCursor`, there is more of it to ask for.
    """
    session_id = checked_uuid(session_id, what="a session id")
    store, project_id = request.services.runtime.store, request.auth.project_id
    flows = SessionFlows(store)
    parts_before = [b'{"sessionId":%b,"executions":[' % msgspec.json.encode(session_id)]
    size, last = 0, ""
    before = position_of(cursor)
    after = "" if before is None else before.run_id
    async with aclosing(_runs_of(store, project_id, session_id, after=after)) as runs:
        count = 0
        async for run in runs:
            if count == limit:
                return _page(parts_before, last)
            pieces = session_run(store, run, *await flows.of(run))
            try:
                parts = await _collect(pieces, most=PAGE_BYTES - size)
            except RunPurged:
                # A run that is deleted meanwhile is left out of the session.
                continue
            if parts is None:
                if count:
                    return _page(parts_before, last)
                more = await anext(runs, None)
                pieces = session_run(store, run, *await flows.of(run))
                return json_stream(request, _streamed(parts_before, pieces, _closing(run.id if more else "")))
            parts_before += [b","] * bool(count) + parts
            size += sum(map(len, parts))
            last, count = run.id, count + 1
    if not last and (
        cursor is None or not await store.session_runs(project_id, session_id, after="", limit=1)
    ):
        raise api_error("SESSION_NOT_FOUND", f"there is no session {session_id!r}")
    return _page(parts_before, "")


def _page(parts_before: Sequence[bytes], last: str) -> Response:
    return Response(b"".join([*parts_before, _closing(last)]), media_type=JSON)


def _closing(last: str) -> bytes:
    """The end of a response, with a cursor where `last`, its last run, is followed by others."""
    if not last:
        return b"]}"
    return b'],"nextCursor":%b}' % msgspec.json.encode(cursor_of_position(ListPosition(last)))


async def _runs_of(
    store: RunLog, project_id: int, session_id: str, *, after: str
) -> AsyncGenerator[RunRecord, None]:
    while True:
        found = await store.session_runs(project_id, session_id, after=after, limit=RUNS_AT_ONCE)
        for run in found:
            yield run
        if len(found) < RUNS_AT_ONCE:
            return
        after = found[-1].id


async def _collect(pieces: AsyncGenerator[bytes, None], *, most: int) -> list[bytes] | None:
    """All pieces; None where they are larger than `most` bytes."""
    parts: list[bytes] = []
    async with aclosing(pieces):
        async for piece in pieces:
            parts.append(piece)
            most -= len(piece)
            if most < 0:
                return None
    return parts


async def _streamed(
    parts_before: Sequence[bytes], pieces: AsyncGenerator[bytes, None], closing: bytes
) -> AsyncGenerator[bytes, None]:
    yield b"".join(parts_before)
    async with aclosing(pieces):
        async for piece in pieces:
            yield piece
    yield closing
