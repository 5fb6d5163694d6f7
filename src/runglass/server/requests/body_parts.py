"""A body that is taken in piece by piece and never held as a whole."""

from collections.abc import AsyncGenerator

from starlette.requests import ClientDisconnect

from runglass.errors import APIError, api_error
from runglass.server.api_request import ApiRequest
from runglass.server.requests.body import LENGTH_DIGITS

PIECE_BYTES = 256 * 1024
"""About how much is handed on at a time."""


async def body_parts(request: ApiRequest, *, limit_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body in pieces. Raises REQUEST_TOO_LARGE, and INVALID_REQUEST where its caller left before its end.

    A compressed one is refused: what it becomes may be a thousand times as large.
    """
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise api_error("INVALID_REQUEST", f"the body is encoded as {coding!r:.40}; send it as it is")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > LENGTH_DIGITS or int(length) > limit_bytes:
        raise _too_large(limit_bytes)
    size, held = 0, list[bytes]()
    pending = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit_bytes:
                raise _too_large(limit_bytes)
            held.append(part)
            pending += len(part)
            if pending >= PIECE_BYTES:
                yield b"".join(held)
                held, pending = [], 0
    except ClientDisconnect as error:
        raise api_error("INVALID_REQUEST", "the connection ended before the body did") from error
    yield b"".join(held)


def _too_large(limit_bytes: int) -> APIError:
    return api_error(
        "REQUEST_TOO_LARGE", f"the file is larger than {limit_bytes:,} bytes (setting import_limit_bytes)"
    )
