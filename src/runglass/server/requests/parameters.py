"""The parameters of a run to start, from the path and the headers of the request, checked."""

import re
from typing import Annotated

from msgspec import Meta

from runglass.errors import api_error
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import Parameter
from runglass.wire.run_api import TraceContext, read_trace_context

SESSION_ID = Parameter("X-Session-Id", str, "a UUID that ties runs together", argument="session_id")
MAX_KEY = 255
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    Annotated[str, Meta(min_length=1, max_length=MAX_KEY)],
    "a name for the call: sent again under it, within 24 hours, it starts nothing and gets the same answer",
)
TRACEPARENT = Parameter(
    "traceparent", str, "W3C Trace Context, kept with the run; a malformed one counts as not sent"
)
TRACESTATE = Parameter("tracestate", str, "W3C Trace Context, kept beside a good `traceparent`")
VERSION = Parameter(
    "version", str, "the number of a version, as good as `vN` in the path", argument="version_query"
)

_VERSION = re.compile(r"v(0|[1-9]\d*)", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def version_number(version: str) -> int:
    """The number in the path's `vN`. Raises INVALID_VERSION."""
    found = _VERSION.fullmatch(version)
    if found is None:
        raise api_error("INVALID_VERSION", f"version {version!r} is not v1, v2, … or v0, the draft")
    # No flow has as many versions as ten digits can count, so a larger number names no version either.
    return int(found[1][:10])


def requested_version(path: str | None, query: str | None) -> int | None:
    """The number of the version that a call names: by `vN` in its path, or `?version=N` in its query.

    None where the call names none. Raises INVALID_VERSION.
    """
    number = None if path is None else version_number(path)
    if query is None:
        return number
    # The query's `3` is the path's `v3`, so that both accept the same numbers.
    if _VERSION.fullmatch(f"v{query}") is None:
        message = f"`version` must be a number, 0 for the draft, not {query!r:.100}"
        raise api_error("INVALID_VERSION", message)
    queried = version_number(f"v{query}")
    if number not in (None, queried):
        raise api_error("INVALID_VERSION", f"the path names version {number}, the query version {queried}")
    return queried


def idempotency_key_of(request: ApiRequest) -> str | None:
    """The key under which the call is made once. Raises INVALID_REQUEST for one that is empty or too long."""
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= MAX_KEY:
        raise api_error("INVALID_REQUEST", f"the header Idempotency-Key must have 1 to {MAX_KEY} characters")
    return key


def refuse_two_values(request: ApiRequest, *parameters: Parameter) -> None:
    """Raises INVALID_REQUEST for a header that came twice with different values: neither can be meant."""
    for name in (parameter.name for parameter in parameters):
        if len(set(request.headers.getlist(name))) > 1:
            raise api_error("INVALID_REQUEST", f"the header {name} was sent with different values; send one")


def trace_context_of(request: ApiRequest) -> TraceContext | None:
    """The W3C trace that the request is part of; None without headers for it, or with malformed ones."""
    headers = request.headers
    return read_trace_context(headers.getlist("traceparent"), headers.getlist("tracestate"))


def checked_uuid(value: str, *, what: str) -> str:
    """The UUID in lower case, as the store has it. Raises EXECUTION_ID_INVALID, which calls it `what`."""
    if not _UUID.fullmatch(value):
        raise api_error("EXECUTION_ID_INVALID", f"{what} must be a UUID, not {value!r:.100}")
    return value.lower()
