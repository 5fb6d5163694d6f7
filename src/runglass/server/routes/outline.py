"""Reading a run as an outline: its tree of steps with times, tokens and cost, and no content."""

from collections.abc import AsyncGenerator, Iterator
from functools import partial
from typing import Annotated

from msgspec import Meta
from starlette.responses import Response
from starlette.types import ASGIApp

from runglass.engine.scheduling.offloading import offload_in_turn
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import JSON, Parameter
from runglass.server.http.compression import Gzip, accepts_gzip
from runglass.server.http.response_stream import StreamedResponse
from runglass.server.security.revocation import parts_while_allowed
from runglass.store.records import RunRecord

AT_ONCE_ROWS = 500
"""Rows that are answered at once: a millisecond of work, and some 20 kB."""
COMPRESSED_BYTES = 1024
"""A smaller answer is not compressed."""

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
ACCEPT_ENCODING = Parameter("Accept-Encoding", str, "encodings of HTTP", argument="accept_encoding")


async def outline(
    request: ApiRequest,
    run: RunRecord,
    after: int | None,
    limit: int,
    seq: int | None,
    accept_encoding: str | None,
) -> ASGIApp:
    """Rows of the run's tree in pre-order, as columns.

    While the run goes on, `trace/stream?after=SEQ` with the `seq` of the answer tells all that happens next.
    A page whose `seq` is another than that of the page before is of another outline: begin again.
    """
    found = await request.services.outlines.of(run, seq=seq)
    first = 0 if after is None else after + 1
    parts = found.json_parts(first, limit)
    gzip = Gzip() if accepts_gzip(accept_encoding) else None
    if min(limit, found.row_count) <= AT_ONCE_ROWS:
        body = b"".join(parts)
        headers = {"Vary": "Accept-Encoding"}
        if gzip is not None and len(body) >= COMPRESSED_BYTES:
            headers["Content-Encoding"] = "gzip"
            body = gzip.add(body) + gzip.end()
        return Response(body, media_type=JSON, headers=headers)
    headers_of_stream = [(b"content-type", JSON.encode()), (b"vary", b"Accept-Encoding")]
    if gzip is not None:
        headers_of_stream.append((b"content-encoding", b"gzip"))
    return StreamedResponse(parts_while_allowed(request, _sent(parts, gzip)), headers=headers_of_stream)


async def _sent(parts: Iterator[bytes], gzip: Gzip | None) -> AsyncGenerator[bytes, None]:
    while (part := await offload_in_turn(partial(_next_of, parts, gzip))) is not None:
        if part:
            yield part
    if gzip is not None:
        yield gzip.end()


def _next_of(parts: Iterator[bytes], gzip: Gzip | None) -> bytes | None:
    part = next(parts, None)
    return part if part is None or gzip is None else gzip.add(part)
