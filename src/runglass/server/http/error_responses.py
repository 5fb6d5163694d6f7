"""Errors as responses: one shape for all of them, without details of the server's inside.

An `APIError` has a code of the wire contract. Every other exception, from a store that is away to a bug of
the server, is turned into an `APIError` here. Requests that are refused before they reach the application
have theirs here, too.
"""

import logging
import math
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http import HTTPStatus

import msgspec
from starlette.responses import Response

from runglass.errors import (
    APIError,
    FlowRecorded,
    ImportConflict,
    PermanentStoreError,
    RateLimitError,
    RequestError,
    RunFileError,
    RunPurged,
    RunUnreadable,
    StoreError,
    StoreFull,
    api_error,
)
from runglass.log.measurements import measured
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import JSON
from runglass.support.safe_text import printable

log = logging.getLogger(__name__)


def error_body(error: APIError) -> bytes:
    """`{"detail": {"code", "message", …}}`, with the ids where the error has them."""
    ids = {"executionId": error.execution_id, "stepId": error.step_id}
    detail = {
        "code": error.code,
        "message": error.message,
        **{name: value for name, value in ids.items() if value is not None},
        **error.details,
    }
    return msgspec.json.encode({"detail": detail})


def error_headers(error: APIError) -> dict[str, str]:
    """The headers that a response with this error must have."""
    if isinstance(error, RateLimitError) and error.retry_after_s is not None:
        return {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
    if error.status == 503:
        return {"Retry-After": "1"}
    return {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}


def error_response(error: APIError) -> Response:
    """The response with this error, which is counted."""
    measured.error_response(error.code)
    headers = error_headers(error)
    return Response(error_body(error), status_code=error.status, media_type=JSON, headers=headers)


def as_api_error(request: ApiRequest, fault: Exception) -> APIError:
    """The error that the caller gets for an exception of a handler; faults of the server go to the log."""
    where = f"{request.method} {printable(request.scope['path'])}"
    match fault:
        case APIError():
            return fault
        case ImportConflict() | FlowRecorded():
            return api_error(fault.code, str(fault))
        case RunFileError():
            return api_error("INVALID_REQUEST", f"the run was not imported: {fault}")
        case RunPurged():
            return api_error("RUN_NOT_FOUND", "the run was deleted while it was read")
        case StoreError() if not isinstance(fault, PermanentStoreError):
            return unavailable(fault, request_id=request.id, where=where)
        case RunUnreadable():
            log.error("request %s: %s: %s", request.id, where, fault)
            message = f"{fault}; an administrator of the server can save it with `runglass data export-raw`"
            return api_error("INTERNAL_ERROR", message, execution_id=fault.run_id)
    log.error("request %s: %s failed", request.id, where, exc_info=fault)
    return api_error(
        "INTERNAL_ERROR", f"a fault of the server; its log has the details under request id {request.id}"
    )


def unavailable(fault: StoreError, *, request_id: str, where: str) -> APIError:
    """The error while the store cannot be reached. Only the log gets the cause, as it names local paths."""
    log.error("request %s: %s found no store: %s", request_id, where, fault)
    if isinstance(fault, StoreFull):
        message = (
            "the disk of the store is full; nothing was started. Delete runs (`runglass runs delete`), which"
            " works on a full disk as well, or make room on it; the server then continues by itself"
        )
        return api_error("UNAVAILABLE", message)
    return api_error("UNAVAILABLE", "the store cannot be reached; nothing was started, retry later")


@contextmanager
def once_started(execution_id: str) -> Iterator[None]:
    """Turns a failure of the store inside the block, where a run has been started, into INTERNAL_ERROR.

    UNAVAILABLE promises that nothing was started, and clients would start the run again.
    """
    try:
        yield
    except StoreError as error:
        log.error("run %s continues, but its store failed: %s", execution_id, error)  # noqa: TRY400
        message = "the run was started, but its state is unknown at the moment; its trace will show it"
        raise api_error("INTERNAL_ERROR", message, execution_id=execution_id) from error


def answer_of(error: APIError) -> bytes:
    """The whole response as bytes, after which the connection ends. It is counted."""
    measured.error_response(error.code)
    body = error_body(error)
    headers = {
        "date": formatdate(usegmt=True),
        "content-type": JSON,
        "content-length": str(len(body)),
        "x-request-id": str(uuid.uuid4()),
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
        **error_headers(error),
        "connection": "close",
    }
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode()]
    lines += [f"{name.lower()}: {value}".encode() for name, value in headers.items()]
    return b"\r\n".join([*lines, b"", body])


def invalid(message: str) -> APIError:
    """The error for a request that is no valid HTTP."""
    return RequestError(message, code="INVALID_REQUEST", status=400)


def late(message: str) -> APIError:
    """The error for a request that is not sent to its end in time."""
    return RequestError(message, code="INVALID_REQUEST", status=408)


def too_large(message: str) -> APIError:
    """The error for a request whose head is too large, or a part of it."""
    return RequestError(message, code="REQUEST_TOO_LARGE", status=431)


def busy_server(limit: int) -> APIError:
    """The error where the server has no place for a further request."""
    return api_error(
        "UNAVAILABLE",
        f"the server is busy with max_connections={limit} connections and starts nothing; try again later, or"
        " have the setting max_connections raised",
    )
