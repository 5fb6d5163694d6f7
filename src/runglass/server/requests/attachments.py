"""The limits of attachments, the images that a caller gives to the llm steps.

Only the fields of an attachment are checked. The server fetches no URL, so the model provider finds out
whether it leads to an image.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from runglass.errors import APIError, api_error
from runglass.wire.run_api import Attachment, accept_both_spellings

MAX_ATTACHMENTS = 10
MAX_URL = 2048
MAX_FILENAME = 255
NEEDED = ("url", "mimeType")
MIME_TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif")


def spell_attachments(value: Any) -> Any:
    """The `attachments` of a body in camelCase and without nulls; a value that is no list as it is.

    Raises INVALID_ATTACHMENT for an entry that is no object or has a field missing or of the wrong type.
    """
    if not isinstance(value, list):
        return value
    return [_spelled(index, item) for index, item in enumerate(value)]


def check_attachments(attachments: Sequence[Attachment]) -> None:
    """Raises INVALID_ATTACHMENT for the first limit that is broken, naming the place."""
    if len(attachments) > MAX_ATTACHMENTS:
        raise api_error(
            "INVALID_ATTACHMENT",
            f"`attachments` has {len(attachments)} entries; at most {MAX_ATTACHMENTS} are taken",
        )
    for index, attachment in enumerate(attachments):
        if attachment.kind != "url":
            raise _broken(index, "kind", f"must be 'url', not {attachment.kind!r}")
        if attachment.mime_type not in MIME_TYPES:
            raise _broken(
                index, "mimeType", f"must be one of {', '.join(MIME_TYPES)}, not {attachment.mime_type!r}"
            )
        if (mistake := url_mistake(attachment.url)) is not None:
            raise _broken(index, "url", mistake)
        if attachment.filename is not None:
            _check_filename(index, attachment.filename)


def url_mistake(url: str) -> str | None:
    """Why the text cannot be the URL of an image; None if it can."""
    if len(url) > MAX_URL:
        return f"has {len(url):,} characters; at most {MAX_URL:,} are taken"
    try:
        parts = urlsplit(url)
        named = parts.scheme == "https" and parts.hostname is not None
    except ValueError:
        named = False
    # urlsplit drops line ends and tabs, which the model provider may read differently.
    if not named or not url.isprintable() or " " in url:
        return "must be a full https:// address"
    return None


def _spelled(index: int, item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise api_error("INVALID_ATTACHMENT", f"`attachments[{index}]` must be an object")
    given = {name: value for name, value in item.items() if value is not None}
    spelled: dict[str, Any] = accept_both_spellings(given, Attachment)
    for field in Attachment.__struct_encode_fields__:
        if field in NEEDED and field not in spelled:
            raise _broken(index, field, "is missing")
        if not isinstance(spelled.get(field, ""), str):
            raise _broken(index, field, f"must be text, not {spelled[field]!r:.100}")
    return spelled


def _check_filename(index: int, filename: str) -> None:
    if len(filename) > MAX_FILENAME:
        raise _broken(
            index, "filename", f"has {len(filename):,} characters; at most {MAX_FILENAME} are taken"
        )
    if any(part in filename for part in ("/", "\\", "..")):
        raise _broken(index, "filename", f"must be a bare name without `/`, `\\` and `..`, not {filename!r}")


def _broken(index: int, field: str, rule: str) -> APIError:
    return api_error("INVALID_ATTACHMENT", f"`attachments[{index}].{field}` {rule}")
