"""Errors for requests that are refused before they reach the application."""

import uuid
from http import HTTPStatus

from runglass.errors import APIError, RateLimitError, RequestError, api_error
from runglass.server.endpoint import JSON
from runglass.server.http.error_responses import error_body, error_headers

Headers = list[tuple[bytes, bytes]]


def answer_of(error: APIError, default_headers: Headers) -> bytes:
    """The whole response as bytes, after which the connection ends."""
    body = error_body(error)
    headers = {
        "content-type": JSON,
        "content-length": str(len(body)),
        "x-request-id": str(uuid.uuid4()),
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
        **error_headers(error),
        "connection": "close",
    }
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode()]
    lines += [b"%b: %b" % header for header in default_headers]
    lines += [f"{name.lower()}: {value}".encode() for name, value in headers.items()]
    return b"\r\n".join([*lines, b"", body])


def invalid(message: str) -> APIError:
    """The error for a request that is no valid HTTP."""
    return RequestError(message, code="INVALID_REQUEST", status=400)


def late(message: str) -> APIError:
    """The error for a request that is not sent to its end in time."""
    return RequestError(message, code="INVALID_REQUEST", status=408)


def too_large(status: int, message: str) -> APIError:
    """The error for a request with a part that is too large; the status says which part."""
    return RequestError(message, code="REQUEST_TOO_LARGE", status=status)


def large_head(limit: int) -> APIError:
    """The error for a head that is too large as a whole."""
    return too_large(431, f"URL and headers of the request are larger than head_limit_bytes={limit:,}")


def busy_server(limit: int) -> APIError:
    """The error where the server has no place for a further request."""
    return api_error(
        "UNAVAILABLE",
        f"the server is busy with max_connections={limit} connections and starts nothing; try again later, or"
        " have the setting max_connections raised",
    )


def busy_address(limit: int) -> APIError:
    """The error where the address has no place for a further request."""
    error = RateLimitError(
        f"your address has max_connections_per_address={limit} connections with a request under way; end"
        " some, or have the setting max_connections_per_address raised",
        code="RATE_LIMITED",
        status=429,
    )
    error.retry_after_s = 1.0
    return error
