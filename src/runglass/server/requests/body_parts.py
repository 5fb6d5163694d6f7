"""A body that is taken in piece by piece and never held as a whole."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import ClientDisconnect

from runglass.errors import APIError, api_error
from runglass.server.api_request import ApiRequest
from runglass.server.http.refusals import late
from runglass.server.requests.body import LENGTH_DIGITS

PIECE_BYTES = 256 * 1024
"""About how much is handed on at a time."""


async def body_parts(
    request: ApiRequest, *, limit_bytes: int, silence_s: float
) -> AsyncGenerator[bytes, None]:
    """The body in pieces. Raises REQUEST_TOO_LARGE, and INVALID_REQUEST where its caller left before its end.

    So does a caller of whom nothing comes for `silence_s`. A compressed body is refused: what it becomes may
    be a thousand times as large.
    """
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise api_error("INVALID_REQUEST", f"the body is encoded as {coding!r:.40}; send it as it is")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > LENGTH_DIGITS or int(length) > limit_bytes:
        raise _too_large(limit_bytes)
    size, held = 0, list[bytes]()
    pending = 0
    async with aclosing(request.stream()) as stream:
        while (part := await _next(stream, silence_s)) is not None:
            size += len(part)
            if size > limit_bytes:
                raise _too_large(limit_bytes)
            held.append(part)
            pending += len(part)
            if pending >= PIECE_BYTES:
                yield b"".join(held)
                held, pending = [], 0
    yield b"".join(held)


async def _next(stream: AsyncGenerator[bytes, None], silence_s: float) -> bytes | None:
    """The next part; None at the end. Raises INVALID_REQUEST where it does not come."""
    try:
        async with asyncio.timeout(silence_s):
            return await anext(stream, None)
    except ClientDisconnect as error:
        raise api_error("INVALID_REQUEST", "the connection ended before the body did") from error
    except TimeoutError as error:
        # The limit of connections is for the whole body, and longer the more of it has come.
        raise late(f"nothing of the body came for body_time_limit_s={silence_s:g} s") from error


def _too_large(limit_bytes: int) -> APIError:
    return api_error(
        "REQUEST_TOO_LARGE", f"the file is larger than {limit_bytes:,} bytes (setting import_limit_bytes)"
    )
