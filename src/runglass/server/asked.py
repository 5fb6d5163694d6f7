"""What a handler reads and answers by hand: the bytes of a body, and a value as JSON."""

import msgspec
from litestar import Response
from litestar.exceptions import InternalServerException
from litestar.openapi.datastructures import ResponseSpec

from runglass.errors import api_error
from runglass.server.answers import JSON
from runglass.server.auth import Asked


async def body_of(request: Asked) -> bytes:
    """The whole body. Raises INVALID_REQUEST where the client left before its end."""
    try:
        return await request.body()
    except InternalServerException as error:
        # So the framework calls a client that has left, which is no fault of the server.
        raise api_error("INVALID_REQUEST", "the connection ended before the body did") from error


def answer(value: object, *, status: int = 200) -> Response[bytes]:
    """The value as JSON."""
    return Response(msgspec.json.encode(value), status_code=status, media_type=JSON)


def documented(shape: object, description: str, *, status: int = 200) -> dict[int, ResponseSpec]:
    """How the description of the interface tells of such an answer."""
    return {status: ResponseSpec(shape, description=description, generate_examples=False)}
