"""A JSON answer that may be larger than the server wants to hold: sent part by part, as it is read.

Most answers are small, and those are one read and one write with a Content-Length.
"""

from collections.abc import AsyncGenerator, Callable

from starlette.responses import Response
from starlette.types import ASGIApp

from runglass.server.endpoint import JSON
from runglass.server.http.response_stream import StreamedResponse

PART_BYTES = 256 * 1024
"""About how much is read and sent at a time, and so the memory that an answer costs."""

Pages = AsyncGenerator[list[bytes], None]
Lasting = Callable[[AsyncGenerator[bytes, None]], AsyncGenerator[bytes, None]]


async def joined(opening: bytes, pages: Pages, closing: bytes, *, lasting: Lasting) -> ASGIApp:
    """The pages' members as one JSON array between `opening` and `closing`.

    The parts of an answer that is not sent at once go through `lasting`, which may break it off. So does a
    read that fails once the answer has begun: a body that ended in good order would pass for the whole.
    """
    first: list[bytes] = await anext(pages, [])
    second = await anext(pages, None)
    if second is None:
        return Response(b"%b[%b]%b" % (opening, b",".join(first), closing), media_type=JSON)
    return json_stream(lasting(_parts(opening, first, second, pages, closing)))


def json_stream(parts: AsyncGenerator[bytes, None]) -> StreamedResponse:
    """The answer that sends the parts of a JSON text."""
    return StreamedResponse(parts, headers=[(b"content-type", JSON.encode())])


async def _parts(
    opening: bytes, first: list[bytes], second: list[bytes], pages: Pages, closing: bytes
) -> AsyncGenerator[bytes, None]:
    yield b"%b[%b" % (opening, b",".join(first))
    yield b",%b" % b",".join(second)
    async for page in pages:
        yield b",%b" % b",".join(page)
    yield b"]%b" % closing
