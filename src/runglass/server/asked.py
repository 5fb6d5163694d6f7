"""What a handler reads and answers by hand: the bytes of a body, and a value as JSON."""

import asyncio
from typing import Any

import msgspec
from litestar import Response
from litestar.exceptions import InternalServerException
from litestar.openapi.datastructures import ResponseSpec

from runglass.errors import api_error
from runglass.server.answers import JSON
from runglass.server.auth import Asked, runtime_of

BODY = "body"
"""What the body is called among the things that belong to a request."""
PROMPT_S = 0.2
"""A body that has come by then came with its head, whose key was good."""


async def body_of(request: Asked) -> bytes:
    """The whole body. Raises INVALID_REQUEST where the client left before its end.

    Raises UNAUTHENTICATED where its key was revoked meanwhile: a body may take its time, and who sends one
    slowly would keep a revoked key for so long.
    """
    held: dict[str, Any] = request.scope["state"]
    if BODY in held:
        body: bytes = held[BODY]
        return body
    clock = asyncio.get_running_loop().time
    began_s = clock()
    try:
        # The framework's own `body` would be held as long as the request, which may last as long as its run.
        body = held[BODY] = b"".join([part async for part in request.stream()])
    except InternalServerException as error:
        # So the framework calls a client that has left, which is no fault of the server.
        raise api_error("INVALID_REQUEST", "the connection ended before the body did") from error
    if clock() - began_s > PROMPT_S and not await runtime_of(request).store.live_keys([request.auth.id]):
        raise api_error("UNAUTHENTICATED", "the API key was revoked while its request came; nothing was done")
    return body


def forget_body(request: Asked) -> None:
    """Lets go of the body, which nobody reads any more: the request may wait for long."""
    request.scope["state"].pop(BODY, None)


def answer(value: object, *, status: int = 200) -> Response[bytes]:
    """The value as JSON."""
    return Response(msgspec.json.encode(value), status_code=status, media_type=JSON)


def documented(shape: object, description: str, *, status: int = 200) -> dict[int, ResponseSpec]:
    """How the description of the interface tells of such an answer."""
    return {status: ResponseSpec(shape, description=description, generate_examples=False)}
