"""What a path and the headers of a request say about the run to start, checked."""

import re
from typing import Annotated

from litestar.params import HeaderParameter

from runglass.errors import api_error

SessionId = Annotated[
    str | None,
    HeaderParameter(name="X-Session-Id", description="a UUID that ties runs together"),
]

_VERSION = re.compile(r"v(0|[1-9]\d*)", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def version_number(version: str) -> int:
    """The number in the path's `vN`. Raises INVALID_VERSION."""
    found = _VERSION.fullmatch(version)
    if found is None:
        raise api_error("INVALID_VERSION", f"version {version!r} is not v1, v2, … or v0, the draft")
    # No flow has as many versions as ten digits can count: what is larger is not there either.
    return int(found[1][:10])


def checked_uuid(value: str, *, what: str) -> str:
    """The UUID in lower case, as the store has it. Raises EXECUTION_ID_INVALID, which calls it `what`."""
    if not _UUID.fullmatch(value):
        raise api_error("EXECUTION_ID_INVALID", f"{what} must be a UUID, not {value!r:.100}")
    return value.lower()
