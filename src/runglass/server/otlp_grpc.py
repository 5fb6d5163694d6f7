"""OTLP over gRPC, for programs that speak nothing else. Each call is made a request of the application.

So keys, rates, limits and refusals are those of OTLP over HTTP: this file knows no key and no span.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import grpc
import msgspec
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from starlette.types import ASGIApp, Message, Receive, Scope

from runglass.errors import RunglassError, api_error
from runglass.limits.shares import FairTurns, Shares

PATHS = {
    f"/opentelemetry.proto.collector.{package}.v1.{service}/Export": f"/v1/{signal}"
    for package, service, signal in (
        ("trace", "TraceService", "traces"),
        ("logs", "LogsService", "logs"),
        ("metrics", "MetricsService", "metrics"),
    )
}
HEADERS = frozenset({"authorization", "x-api-key", "x-runglass-flow", "x-request-id"})
"""What of the metadata is a header of the request."""
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
"""By the status of the response. Those that come with RetryInfo are sent again by exporters."""
MOST_CALLS = 1000
"""The most calls at a time; more are to be sent again."""
MOST_CONNECTIONS = 1000
"""The most connections at a time; each takes a file descriptor, which HTTP needs as well."""
READ_AT_ONCE = 8
"""The most calls of a project whose messages are read or worked on; other messages are not read yet."""


@asynccontextmanager
async def taking_grpc(
    app: ASGIApp, address: str, *, limit_bytes: int, read_s: float, idle_s: int, grace_s: float
) -> AsyncIterator[str]:
    """Takes calls until the block ends, and then ends those that go on for longer; gives the address.

    A message may have `limit_bytes`, decompressed, and take `read_s`; a connection without calls is closed
    after `idle_s`. Raises RunglassError if the address cannot be had.
    """
    options = [
        ("grpc.max_receive_message_length", limit_bytes),
        ("grpc.max_allowed_incoming_connections", MOST_CONNECTIONS),
        ("grpc.max_connection_idle_ms", idle_s * 1000),
        # Otherwise a second server could have the same port, and each would get some of the calls.
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((_Handlers(app, read_s),))
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise RunglassError(
            f"cannot listen on {address} for gRPC: {error}; stop what uses the address, or choose another one"
            " with --otlp-grpc HOST:PORT"
        ) from error
    await server.start()
    try:
        yield f"{address.rpartition(':')[0]}:{port}"
    finally:
        await server.stop(grace_s)


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]  # it has no types
    """The methods of OTLP, whose messages stay bytes."""

    def __init__(self, app: ASGIApp, read_s: float) -> None:
        self._app = app
        self._read_s = read_s
        self._calls = 0
        self._reading = FairTurns(Shares(math.inf, most_each=READ_AT_ONCE))

    def service(self, details: Any) -> Any:
        """The handler of a call; None, which is answered with UNIMPLEMENTED, for another method."""
        path = PATHS.get(details.method)
        # As one of a stream, though there is one message: such a call begins before its message is read.
        return None if path is None else grpc.stream_unary_rpc_method_handler(partial(self._export, path))

    async def _export(self, path: str, _: AsyncIterator[bytes], context: Any) -> bytes:
        shown = [(name, value) for name, value in context.invocation_metadata() if name in HEADERS]
        headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in shown]
        scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
        if self._calls >= MOST_CALLS:
            # The library's own refusal would count as final.
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, f"{MOST_CALLS:,} calls are in progress; send it again"
            )
        self._calls += 1
        try:
            async with AsyncExitStack() as until_end:
                receive = partial(self._receive, scope, context, until_end)
                status, told, answer = await _response(self._app, scope, receive)
        finally:
            self._calls -= 1
        if status == 200:
            return answer
        code = CODES.get(status, grpc.StatusCode.INTERNAL)
        message = str(msgspec.json.decode(answer)["detail"]["message"])
        details: tuple[tuple[str, bytes], ...] = ()
        if (retry_after := told.get(b"retry-after")) is not None:
            rich = Status(code=code.value[0], message=message)
            rich.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=int(retry_after))))
            details = (("grpc-status-details-bin", rich.SerializeToString()),)
        await context.abort(code, message, trailing_metadata=details)
        raise AssertionError("the call was aborted")

    async def _receive(self, scope: Scope, context: Any, until_end: AsyncExitStack) -> Message:
        """The message, which is read once the application knows whose it is and asks for it.

        Raises UNAVAILABLE where it does not come in time.
        """
        project_id = scope["auth"].project_id
        try:
            async with asyncio.timeout(self._read_s):
                await until_end.enter_async_context(self._reading.turn(project_id))
                # Not from the iterator, which the library never lets go of, with the message in it.
                body = await context.read()
        except TimeoutError as error:
            message = f"the message did not come within body_time_limit_s={self._read_s:g}; send it again"
            raise api_error("UNAVAILABLE", message) from error
        if body is grpc.aio.EOF:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": body, "more_body": False}


async def _response(app: ASGIApp, scope: Scope, receive: Receive) -> tuple[int, dict[bytes, bytes], bytes]:
    """The status, the headers and the body of what the application answers."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *parts = sent
    return start["status"], dict(start["headers"]), b"".join(part["body"] for part in parts)
