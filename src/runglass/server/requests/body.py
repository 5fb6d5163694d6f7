"""The body of a request, as a whole or piece by piece, and a value as a JSON response."""

import asyncio
import zlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec
from backports import zstd
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from runglass.errors import RequestError, api_error
from runglass.runtime.runtime import PROMPT_S
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import JSON
from runglass.server.http.error_responses import invalid, late

LENGTH_DIGITS = 19
PIECE_BYTES = 256 * 1024
"""About how much is handed on at a time."""
MOST_PARTS = 10
"""The most streams of a coding in one body, one behind the other."""
WINDOW_LOG = 23
"""The logarithm of what zstd may look back, 8 MiB: all that an HTTP body may ask for (RFC 9659)."""


async def body_of(request: ApiRequest, *, limit_bytes: int | None = None) -> bytes:
    """The whole body, which is read once. Raises INVALID_REQUEST where the client left before its end.

    It may have `limit_bytes`; a larger one raises REQUEST_TOO_LARGE. Without them `body_limit_bytes` is its
    limit, and a compressed one is refused.

    Raises UNAUTHENTICATED where the key was revoked meanwhile: without this check a slow body would keep a
    revoked key in use.
    """
    if limit_bytes is None:
        _require_plain(request)
    store = request.services.runtime.store
    began_s = store.clock.monotonic_s()
    limit = limit_bytes or request.services.runtime.settings.body_limit_bytes
    # The framework would hold the body as long as the request, which may last as long as its run.
    parts, size = list[bytes](), 0
    too_large = f"the request body is larger than {limit:,} bytes"
    with request.services.limits.memory.receiving(request.auth.project_id) as received:
        async for part in _received(request, limit, too_large):
            parts.append(part)
            size += len(part)
            received(size)
    is_slow = store.clock.monotonic_s() - began_s > PROMPT_S
    if is_slow and not await store.live_keys([request.auth.id]):
        raise api_error("UNAUTHENTICATED", "the API key was revoked while its request came; nothing was done")
    return b"".join(parts)


async def body_parts(
    request: ApiRequest, *, limit_bytes: int, silence_s: float
) -> AsyncGenerator[bytes, None]:
    """The body in pieces, never held as a whole.

    Raises REQUEST_TOO_LARGE, and INVALID_REQUEST where its caller left before its end, or sent nothing for
    `silence_s`. A compressed body is refused: what it becomes may be a thousand times as large.
    """
    _require_plain(request)
    too_large = f"the file is larger than {limit_bytes:,} bytes (setting import_limit_bytes)"
    held, pending = list[bytes](), 0
    async with aclosing(_received(request, limit_bytes, too_large, silence_s)) as parts:
        async for part in parts:
            held.append(part)
            pending += len(part)
            if pending >= PIECE_BYTES:
                yield b"".join(held)
                held, pending = [], 0
    yield b"".join(held)


async def _received(
    request: ApiRequest, limit_bytes: int, too_large: str, silence_s: float | None = None
) -> AsyncGenerator[bytes, None]:
    """The body as it comes, up to its limit and in time. Raises as `body_parts` does."""
    length = request.headers.get("content-length", "0")
    # More digits than any body has bytes: the number itself could not be read.
    if not length.isdecimal() or len(length) > LENGTH_DIGITS or int(length) > limit_bytes:
        raise api_error("REQUEST_TOO_LARGE", too_large)
    size = 0
    async with aclosing(request.stream()) as stream:
        while (part := await _next(stream, silence_s)) is not None:
            size += len(part)
            if size > limit_bytes:
                raise api_error("REQUEST_TOO_LARGE", too_large)
            yield part


CODINGS: dict[str, Callable[[bytes], Any]] = {
    "gzip": lambda body: zlib.decompressobj(zlib.MAX_WBITS | 16),
    # Some senders leave out the frame, whose first two bytes are a multiple of 31.
    "deflate": lambda body: zlib.decompressobj(
        -zlib.MAX_WBITS if int.from_bytes(body[:2]) % 31 else zlib.MAX_WBITS
    ),
    "zstd": lambda body: zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG}
    ),
}
"""By `Content-Encoding`, what decodes a body; `x-gzip` is another name for gzip."""


def coding_of(request: ApiRequest) -> str | None:
    """How the body is encoded, None for not at all. Raises INVALID_REQUEST for codings that are not known."""
    coding = request.headers.get("content-encoding", "").strip().lower().removeprefix("x-")
    if coding in ("", "identity"):
        return None
    if coding not in CODINGS:
        message = (
            f"the body is encoded as {coding!r:.80}; send it with one of {', '.join(CODINGS)}, or as it is"
        )
        raise RequestError(message, code="INVALID_REQUEST", status=415)
    return coding


def decompressed(body: bytes, coding: str, *, limit_bytes: int) -> bytes:
    """The body as it was. No more than `limit_bytes` are ever made of it.

    Raises REQUEST_TOO_LARGE, and INVALID_REQUEST for a body that is damaged or cut off.
    """
    parts, size = list[bytes](), 0
    try:
        while body and len(parts) < MOST_PARTS:
            decoder = CODINGS[coding](body)
            parts.append(decoder.decompress(body, limit_bytes - size + 1))
            size += len(parts[-1])
            if size > limit_bytes:
                message = f"the request body is larger than {limit_bytes:,} bytes once it is decoded"
                raise api_error("REQUEST_TOO_LARGE", message)
            if not decoder.eof:
                raise invalid(f"the body is truncated: its {coding} does not end")
            body = decoder.unused_data
    except (zlib.error, zstd.ZstdError) as error:
        raise invalid(f"the body is no {coding}, or damaged: {error}") from error
    if body:
        raise invalid(f"the body has more than {MOST_PARTS} parts of {coding}")
    return b"".join(parts)


async def _next(stream: AsyncGenerator[bytes, None], silence_s: float | None) -> bytes | None:
    """The next part; None at the end. Raises INVALID_REQUEST where it does not come."""
    try:
        async with asyncio.timeout(silence_s):
            return await anext(stream, None)
    except ClientDisconnect as error:
        raise api_error("INVALID_REQUEST", "the connection ended before the body did") from error
    except TimeoutError as error:
        # The limit of connections is for the whole body, and longer the more of it has come.
        raise late(f"nothing of the body came for body_time_limit_s={silence_s:g} s") from error


def _require_plain(request: ApiRequest) -> None:
    """Raises INVALID_REQUEST for a compressed body."""
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise api_error("INVALID_REQUEST", f"the body is encoded as {coding!r:.40}; send it as it is")


def answer(value: object, *, status: int = 200) -> Response:
    """The response with the value as JSON."""
    return Response(msgspec.json.encode(value), status_code=status, media_type=JSON)
