"""What a managing request says in its body, read by hand so that a mistake is named like everywhere else."""

from typing import TypeVar

import msgspec
from litestar import Response
from litestar.exceptions import InternalServerException
from litestar.openapi.datastructures import ResponseSpec

from runglass.errors import api_error
from runglass.server.answers import JSON
from runglass.server.auth import Asked

T = TypeVar("T")


async def body_of(request: Asked) -> bytes:
    """The whole body. Raises INVALID_REQUEST where the client left before its end."""
    try:
        return await request.body()
    except InternalServerException as error:
        # So the framework calls a client that has left, which is no fault of the server.
        raise api_error("INVALID_REQUEST", "the connection ended before the body did") from error


def read_body(body: bytes, shape: type[T]) -> T:
    """The value in a JSON body. Raises INVALID_REQUEST naming the field that is wrong."""
    try:
        return msgspec.json.decode(body, type=shape)
    except UnicodeDecodeError as error:
        raise api_error("INVALID_REQUEST", "the body is not valid JSON: its text is not UTF-8") from error
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$.")
        raise api_error("INVALID_REQUEST", f"`{place}: {message}" if place else message) from error
    except msgspec.DecodeError as error:
        raise api_error("INVALID_REQUEST", f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise api_error("INVALID_REQUEST", "the body is nested too deep") from error


def answer(value: object, *, status: int = 200) -> Response[bytes]:
    """The value as JSON."""
    return Response(msgspec.json.encode(value), status_code=status, media_type=JSON)


def documented(shape: object, description: str, *, status: int = 200) -> dict[int, ResponseSpec]:
    """How the description of the interface tells of such an answer."""
    return {status: ResponseSpec(shape, description=description, generate_examples=False)}
