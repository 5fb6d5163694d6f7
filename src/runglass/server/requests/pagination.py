"""Lists in pages: cursors, and the ids of the runs of a period.

The ids of runs are UUIDv7: their first 48 bits are the milliseconds at which the run was created, so that an
id, a cursor and a time are all places in one order.
"""

import base64
import uuid
from datetime import UTC, datetime, timedelta
from typing import Annotated

from msgspec import Meta

from runglass.errors import APIError, api_error
from runglass.server.endpoint import Parameter
from runglass.store.records import ListPosition
from runglass.support.clock import LAST_MS

LIMIT = Parameter("limit", Annotated[int, Meta(ge=1, le=100)], "a number from 1 to 100", default=20)
MOST_MANAGED = 1000
MANAGED_LIMIT = Parameter(
    "limit",
    Annotated[int, Meta(ge=1, le=MOST_MANAGED)],
    f"a number from 1 to {MOST_MANAGED:,}",
    default=MOST_MANAGED,
)
"""Of lists that are whole as long as they are this short, as they were before there were pages of them."""
CURSOR = Parameter("cursor", str, "the `nextCursor` of a page")
SINCE = Parameter(
    "since", str, "an ISO 8601 time or date, in UTC unless it says otherwise; runs from then on"
)
UNTIL = Parameter("until", str, "an ISO 8601 time or date, in UTC unless it says otherwise; runs before then")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


def cursor_of_position(position: ListPosition | None) -> str | None:
    """The cursor of a page that ends there; inside the log of a run it is longer."""
    if position is None:
        return None
    packed = uuid.UUID(position.run_id).bytes
    if position.seq:
        packed += position.seq.to_bytes(8) + position.met.to_bytes(8)
    return _cursor(packed)


def position_of(cursor: str | None) -> ListPosition | None:
    """Where a page of the list of runs ended; None without a cursor. Raises INVALID_REQUEST."""
    if cursor is None:
        return None
    packed = _packed(cursor)
    seq, met = int.from_bytes(packed[16:24]), int.from_bytes(packed[24:])
    if len(packed) not in (16, 32) or seq >= 1 << 63:
        raise _no_cursor()
    return ListPosition(str(uuid.UUID(bytes=packed[:16])), seq, met)


def cursor_of_number(number: int) -> str:
    """The cursor of a page that ends with the entry of that number."""
    return _cursor(number.to_bytes(8))


def number_before(cursor: str) -> int:
    """The number of the entry that a page ended with. Raises INVALID_REQUEST."""
    packed = _packed(cursor)
    number = int.from_bytes(packed)
    if len(packed) != 8 or number >= 1 << 63:
        raise _no_cursor()
    return number


def cursor_of_slug(slug: str) -> str:
    """The cursor of a page that ends with the flow of that slug."""
    return _cursor(slug.encode())


def slug_before(cursor: str) -> str:
    """The slug of the flow that a page ended with. Raises INVALID_REQUEST."""
    try:
        slug = _packed(cursor).decode()
    except UnicodeDecodeError as error:
        raise _no_cursor() from error
    if not slug:
        raise _no_cursor()
    return slug


def since_epoch_ms(time: str, *, name: str) -> int:
    """The time in milliseconds since 1970. Raises INVALID_REQUEST."""
    try:
        moment = datetime.fromisoformat(time)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return min(max(0, (moment - _EPOCH) // _MS), LAST_MS)
    except (ValueError, OverflowError) as error:
        message = (
            f"`{name}` must be an ISO 8601 time or date, like 2026-01-31 or 2026-01-31T09:30:00Z, not"
            f" {time!r:.100}; a `+` in it is written %2B"
        )
        raise api_error("INVALID_REQUEST", message) from error


def _cursor(packed: bytes) -> str:
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def _packed(cursor: str) -> bytes:
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise _no_cursor() from error


def _no_cursor() -> APIError:
    return api_error("INVALID_REQUEST", "`cursor` must be the `nextCursor` of a page")
