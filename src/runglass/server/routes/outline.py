"""Reading a run without its content: its tree with times, tokens and cost, and its timeline."""

import re
import zlib
from collections.abc import AsyncGenerator, Iterator
from functools import partial
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.responses import Response
from starlette.types import ASGIApp

from runglass.errors import api_error
from runglass.limits.offload import offload, offload_in_turn
from runglass.limits.pace import paced
from runglass.outlines.outline import ROW_BYTES
from runglass.outlines.timeline import timeline as timeline_of
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import JSON, Parameter
from runglass.server.http.open_responses import while_awaited
from runglass.server.http.response_stream import json_stream
from runglass.store.records import RunRecord

AT_ONCE_ROWS = 500
"""Rows that are answered at once: a millisecond of work, and some 20 kB."""
COMPRESSED_BYTES = 1024
"""A smaller answer is not compressed."""

LEVEL = 1
"""Columns of numbers become a sixth; more would take twice the time and become a seventh."""
_GZIP = 16 + zlib.MAX_WBITS
_ACCEPTED = re.compile(r"(?:^|,)\s*(?:x-)?gzip\s*(?:;\s*q\s*=\s*([0-9.]+)\s*)?(?=,|$)", re.IGNORECASE)

MOST_MS = 1 << 50
"""Some thirty thousand years."""
BUCKET_BYTES = 10
"""About what a bucket of a lane takes in an answer."""

AFTER_ROW = Parameter(
    "after", Annotated[int, Meta(ge=0, le=1 << 31)], "the number of a row; the page begins behind it"
)
ROWS = Parameter(
    "limit", Annotated[int, Meta(ge=1, le=200_000)], "a number of rows from 1 to 200000", default=50_000
)
OF_SEQ = Parameter(
    "seq",
    Annotated[int, Meta(ge=0, le=1 << 62)],
    "the `seq` of an earlier page: rows of the same outline, as long as the server has it",
)
PARTIAL = Parameter(
    "partial",
    bool,
    "true or false: whether, where all rows would take long, the answer may be of a little earlier, or have"
    " the beginning and the end of the run alone",
    default=False,
    argument="is_partial",
)
FROM_MS = Parameter(
    "from",
    Annotated[int, Meta(ge=0, le=MOST_MS)],
    "milliseconds since the start of the run",
    default=0,
    argument="from_ms",
)
TO_MS = Parameter(
    "to",
    Annotated[int, Meta(ge=1, le=MOST_MS)],
    "milliseconds since the start of the run, more than `from`; by default until the last event",
    argument="to_ms",
)
BUCKETS = Parameter(
    "buckets", Annotated[int, Meta(ge=1, le=2000)], "a number of buckets from 1 to 2000", default=500
)
ACCEPT_ENCODING = Parameter("Accept-Encoding", str, "encodings of HTTP", argument="accept_encoding")


async def outline(
    request: ApiRequest,
    run: RunRecord,
    after: int | None,
    limit: int,
    seq: int | None,
    is_partial: bool,
    accept_encoding: str | None,
) -> ASGIApp:
    """Rows of the run's tree in pre-order, as columns.

    With `partial` a long run is answered at once: with rows of a little earlier where the server has
    these, or else with its beginning and its end, where `partial` of the answer is true. Then all rows are
    those of a second request without it, whose row numbers are others.

    While the run goes on, `trace/stream?after=SEQ` with the `seq` of the answer tells all that happens next.
    A page whose `seq` is another than that of the page before is of another outline: begin again.
    """
    outlines = request.services.outlines
    recent = outlines.recent(run) if is_partial else None
    ends = await outlines.ends_of(run) if is_partial and recent is None else None
    found = recent or ends or await outlines.of(run, seq=seq)
    first = 0 if after is None else after + 1
    parts = found.json_parts(first, limit, partial=ends is not None)
    gzip = _gzip_for(accept_encoding)
    if min(limit, found.row_count) <= AT_ONCE_ROWS:
        async with paced("loop", run.project_id):
            return _answer(b"".join(parts), gzip)
    headers = {"vary": "Accept-Encoding"} | ({} if gzip is None else {"content-encoding": "gzip"})
    return json_stream(request, _sent(parts, gzip), headers=headers)


async def timeline(
    request: ApiRequest,
    run: RunRecord,
    from_ms: int,
    to_ms: int | None,
    buckets: int,
    seq: int | None,
    accept_encoding: str | None,
) -> Response:
    """In each lane and bucket of time, the worst status and the attempt that took longest.

    A lane is a row at the top of the outline; beyond fifty, the last lane has all others. Rows are those of
    the outline with the same `seq`.
    """

    async def response() -> Response:
        found = await request.services.outlines.of(run, seq=seq)
        end_ms = max(found.latest_ms, from_ms) + 1 if to_ms is None else to_ms
        if end_ms <= from_ms:
            message = f"`to` must be more than `from`; they are {to_ms} and {from_ms}"
            raise api_error("INVALID_REQUEST", message, execution_id=run.id)
        slices = timeline_of(found, from_ms=from_ms, to_ms=end_ms, buckets=buckets)
        made = None
        while made is None:
            made = await offload(partial(next, slices), size_bytes=found.row_count * ROW_BYTES)
        gzip = _gzip_for(accept_encoding)
        size = len(made.lanes) * buckets * BUCKET_BYTES
        return await offload(lambda: _answer(msgspec.json.encode(made), gzip), size_bytes=size)

    return await while_awaited(request, run.id, response(), otherwise="nothing was changed")


def accepts_gzip(header: str | None) -> bool:
    """Whether a caller who sends this `Accept-Encoding` can read gzip."""
    found = _ACCEPTED.search(header or "")
    return found is not None and (found[1] is None or bool(found[1].strip("0.")))


def _gzip_for(accept_encoding: str | None) -> "zlib._Compress | None":
    return zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP) if accepts_gzip(accept_encoding) else None


def _answer(body: bytes, gzip: "zlib._Compress | None") -> Response:
    headers = {"Vary": "Accept-Encoding"}
    if gzip is not None and len(body) >= COMPRESSED_BYTES:
        headers["Content-Encoding"] = "gzip"
        body = gzip.compress(body) + gzip.flush()
    return Response(body, media_type=JSON, headers=headers)


async def _sent(parts: Iterator[bytes], gzip: "zlib._Compress | None") -> AsyncGenerator[bytes, None]:
    while (part := await offload_in_turn(partial(_next_of, parts, gzip))) is not None:
        if part:
            yield part
    if gzip is not None:
        yield gzip.flush()


def _next_of(parts: Iterator[bytes], gzip: "zlib._Compress | None") -> bytes | None:
    part = next(parts, None)
    return part if part is None or gzip is None else gzip.compress(part)
