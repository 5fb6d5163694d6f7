"""What an error looks like when it leaves the server: one shape for all of them, and nothing inside shown.

`APIError` says what went wrong in the words of the wire contract. Everything else that can come up, from the
web framework's own refusals to a fault of ours, is turned into one here.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from litestar import Response
from litestar.connection import Request
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.params import ParameterKwarg

from runglass.errors import (
    APIError,
    PermanentStoreError,
    RateLimitError,
    RunPurged,
    RunUnreadable,
    StoreError,
    api_error,
)
from runglass.text import printable

log = logging.getLogger(__name__)

JSON = "application/json"


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
    """The headers that an answer with this error must carry."""
    if isinstance(error, RateLimitError) and error.retry_after_s is not None:
        return {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
    if error.status == 503:
        return {"Retry-After": "1"}
    return {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}


def answer_fault(request: Request[Any, Any, Any], fault: Exception) -> Response[bytes]:
    """The answer to whatever a route raised; what is not the caller's doing goes to the log."""
    error = _as_api_error(request, fault)
    headers = error_headers(error)
    if isinstance(fault, MethodNotAllowedException) and fault.headers:
        headers |= fault.headers
    return Response(error_body(error), status_code=error.status, media_type=JSON, headers=headers)


def _as_api_error(request: Request[Any, Any, Any], fault: Exception) -> APIError:
    where = f"{request.method} {printable(request.scope['path'])}"
    match fault:
        case APIError():
            return fault
        case RunPurged():
            return api_error("RUN_NOT_FOUND", "the run was deleted while it was read")
        case StoreError() if not isinstance(fault, PermanentStoreError):
            return unavailable(fault, request_id=request.state["request_id"], where=where)
        case RunUnreadable():
            log.error("request %s: %s: %s", request.state["request_id"], where, fault)
            return unreadable(fault)
        case NotFoundException():
            return api_error("NOT_FOUND", f"there is no path {request.scope['path']!r}")
        case MethodNotAllowedException():
            return api_error("METHOD_NOT_ALLOWED", f"{where} is not possible; see the `Allow` header")
        case RequestEntityTooLarge():
            limit = request.app.request_max_body_size
            return api_error("REQUEST_TOO_LARGE", f"the request body is larger than {limit:,} bytes")
        case ValidationException():
            return api_error("INVALID_REQUEST", _parameter_message(request, fault))
        case HTTPException() if fault.status_code < 500:
            return api_error("INVALID_REQUEST", str(fault.detail))
    request_id = request.state["request_id"]
    log.error("request %s: %s failed", request_id, where, exc_info=fault)
    return api_error(
        "INTERNAL_ERROR", f"a fault of the server; its log has the details under request id {request_id}"
    )


def unavailable(fault: StoreError, *, request_id: str, where: str) -> APIError:
    """The answer while the store cannot be reached. The cause is logged: it names places of this machine."""
    log.error("request %s: %s found no store: %s", request_id, where, fault)
    return api_error("UNAVAILABLE", "the store cannot be reached; nothing was started, try again later")


def unreadable(fault: RunUnreadable) -> APIError:
    """The answer about a run whose rows are broken."""
    message = f"{fault}; an administrator of the server can save it with `runglass data export-raw`"
    return api_error("INTERNAL_ERROR", message, execution_id=fault.run_id)


@contextmanager
def once_started(execution_id: str) -> Iterator[None]:
    """Inside the block a run has been started: a store that fails is not UNAVAILABLE any more.

    That promises that nothing was started, and clients then start it again.
    """
    try:
        yield
    except StoreError as error:
        log.error("run %s goes on, but its store failed: %s", execution_id, error)  # noqa: TRY400
        message = "the run was started, but how it goes on cannot be told at the moment; its trace will show"
        raise api_error("INTERNAL_ERROR", message, execution_id=execution_id) from error


def _parameter_message(request: Request[Any, Any, Any], fault: ValidationException) -> str:
    """Names each parameter that is wrong and what it must be, in the words of its description."""
    messages = []
    extra = fault.extra if isinstance(fault.extra, list) else []
    for problem in extra:
        name = str(problem.get("key"))
        field = request.route_handler.parsed_fn_signature.parameters.get(name)
        about = field.kwarg_definition if field is not None else None
        if isinstance(about, ParameterKwarg) and about.description:
            messages.append(f"`{about.name or name}` must be {about.description}")
        else:
            messages.append(f"`{name}`: {problem.get('message')}")
    return "; ".join(messages) or str(fault.detail)
