"""Where a page of runs ends, as its reader gets it: the id of a run, in a form that nobody reads as one."""

import base64
import binascii
import uuid

from runglass.errors import api_error


def cursor_of(run_id: str) -> str:
    """The cursor of a page that ends with that run."""
    return base64.urlsafe_b64encode(uuid.UUID(run_id).bytes).rstrip(b"=").decode()


def run_of(cursor: str) -> str:
    """The id of the run that a page ends with. Raises INVALID_REQUEST."""
    try:
        return str(uuid.UUID(bytes=base64.b64decode(cursor + "==", altchars=b"-_", validate=True)))
    except (ValueError, binascii.Error) as error:
        raise api_error("INVALID_REQUEST", "`cursor` must be the `nextCursor` of a page") from error
