"""Reading what went into an attempt or came out of it: by itself, and a range of bytes where it is large.

Ranges are those of RFC 9110, section 14.
"""

import re
from collections.abc import AsyncGenerator
from functools import partial
from hashlib import blake2b
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta
from starlette.responses import Response
from starlette.types import ASGIApp

from runglass.errors import RequestError, api_error
from runglass.limits.offload import offload
from runglass.log.trace import StepTrace
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import JSON, Parameter
from runglass.server.http.error_responses import error_response
from runglass.server.http.response_stream import PART_BYTES, json_stream
from runglass.server.services.step_attempts import attempt_pages, chosen_attempts
from runglass.store.base import decoding
from runglass.store.records import RunRecord
from runglass.support.lazy_json import json_bytes

Part: TypeAlias = Literal["input", "output", "error"]

PART = Parameter("part", Part, "input, output or error", default="output")
ONE_ATTEMPT = Parameter(
    "attempt",
    Annotated[str, Meta(pattern="^(latest|[1-9][0-9]{0,8})$")],
    "`latest` or the number of an attempt, from 1 on",
    default="latest",
)
RANGE = Parameter("Range", str, "the bytes that are asked for, as in `bytes=0-65535`", argument="wanted")
IF_RANGE = Parameter("If-Range", str, "the `ETag` of the bytes that are there already", argument="if_range")
IF_NONE_MATCH = Parameter(
    "If-None-Match", str, "the `ETag` of what is there already", argument="if_none_match"
)

_RANGE = re.compile(r"bytes=[ \t]*(\d*)-(\d*)[ \t]*", re.IGNORECASE | re.ASCII)
_MOST_DIGITS = 18


async def payload(
    request: ApiRequest,
    run: RunRecord,
    step_id: str,
    part: Part,
    attempt: str,
    loop_index: str | None,
    position: int | None,
    wanted: str | None,
    if_range: str | None,
    if_none_match: str | None,
) -> ASGIApp:
    """The JSON that is kept of an attempt's input, output or error: all of it or, with `Range`, some bytes.

    An attempt is found as in the trace of a step. What the capture mode does not keep, or what is not there,
    is answered with 404 CONTENT_NOT_KEPT; what was too large is kept cut, as the trace says (`truncated`).
    """
    store = request.services.runtime.store
    chosen = await chosen_attempts(
        store, run, step_id, attempt=attempt, loop_index=loop_index, position=position
    )
    ((data,),) = [page async for page in attempt_pages(store, run, chosen)]
    body = await offload(partial(_content_of, run, data, part), size_bytes=len(data))
    if body is None:
        number = chosen[0].attempt
        message = (
            f"no {part} of attempt {number} of step {step_id!r} is kept: there was none, or it was removed,"
            f" or the capture mode of the run, {run.capture!r}, does not keep it"
        )
        raise api_error("CONTENT_NOT_KEPT", message, execution_id=run.id, step_id=step_id)
    tag = await offload(partial(entity_tag, body), size_bytes=len(body))
    headers = {"Accept-Ranges": "bytes", "ETag": tag, "Cache-Control": "private, no-cache"}
    if names_tag(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    try:
        # In a HEAD the standard has the header ignored.
        found = None if request.is_head else byte_range(wanted, if_range, size=len(body), tag=tag)
    except NoSuchRange:
        message = f"`Range` asks for no byte that there is: the content has {len(body)} bytes"
        response = error_response(
            RequestError(message, code="INVALID_REQUEST", status=416, execution_id=run.id, step_id=step_id)
        )
        response.headers.update({"Content-Range": f"bytes */{len(body)}", "Accept-Ranges": "bytes"})
        return response
    status = 200
    if found is not None:
        status, headers["Content-Range"] = 206, f"bytes {found.start}-{found.stop - 1}/{len(body)}"
        body = body[found.start : found.stop]
    if len(body) <= PART_BYTES:
        return Response(body, status_code=status, headers=headers, media_type=JSON)
    headers["Content-Length"] = str(len(body))
    return json_stream(request, _parts_of(body), headers=headers, status=status)


class NoSuchRange(ValueError):
    """No byte of the answer is in the range that is asked for."""


def entity_tag(data: bytes) -> str:
    """The strong `ETag` of these bytes: equal bytes have the same."""
    return f'"{blake2b(data, digest_size=16).hexdigest()}"'


def names_tag(header: str | None, tag: str) -> bool:
    """Whether an `If-None-Match` names the tag, or any."""
    given = [each.strip() for each in (header or "").split(",")]
    return "*" in given or tag in given or f"W/{tag}" in given


def byte_range(header: str | None, if_range: str | None, *, size: int, tag: str) -> range | None:
    """The bytes that are asked for; None for the whole. Raises NoSuchRange.

    The whole is also for whoever asks for several ranges or has another state of it, and for what is no
    range, as the standard has it.
    """
    found = _RANGE.fullmatch(header or "")
    if found is None or (if_range is not None and if_range.strip() != tag):
        return None
    first, last = found[1], found[2]
    if not (first or last) or max(len(first), len(last)) > _MOST_DIGITS:
        return None
    if not first:
        part = range(max(0, size - int(last)), size)
    elif last and int(last) < int(first):
        return None
    else:
        part = range(int(first), min(int(last) + 1, size) if last else size)
    if not part:
        raise NoSuchRange
    return part


def _content_of(run: RunRecord, data: bytes, part: Part) -> bytes | None:
    with decoding(run.id):
        found: Any = json_bytes(msgspec.json.decode(data, type=StepTrace), f"{part}_context")
    return None if found is None else bytes(found)


async def _parts_of(body: bytes) -> AsyncGenerator[bytes, None]:
    for first in range(0, len(body), PART_BYTES):
        yield body[first : first + PART_BYTES]
