"""The images that a caller gives to the llm steps, and the content of messages, which may have some.

The content is text, or a list of parts as several model providers take it: `{type: "text", text}` or
`{type: "image_url", image_url: {url}}`. The texts are joined as they are; an image is an attachment without a
type of its own, within the same limits. The server fetches no URL, so the model provider finds out whether it
leads to an image.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from runglass.errors import APIError, api_error
from runglass.wire.run_api import Attachment, accept_both_spellings

MAX_ATTACHMENTS = 10
MAX_URL = 2048
MAX_FILENAME = 255
NEEDED = ("url", "mimeType")
MIME_TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif")
PARTS = ("text", "image_url")
USUAL_TYPE = "image/jpeg"
"""The type of an image whose URL has no known suffix; most providers detect it for themselves."""

_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
}


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


class Content(NamedTuple):
    """The text and the images of a message."""

    text: str
    images: list[Attachment]


def read_content(value: Any, path: str) -> Content:
    """The content at that path. Raises INVALID_REQUEST, and INVALID_ATTACHMENT for an image's URL."""
    if isinstance(value, str):
        return Content(value, [])
    if not isinstance(value, list) or not value:
        raise api_error("INVALID_REQUEST", f"`{path}` must be text or a list of content parts")
    texts, images = [], []
    for index, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in PARTS:
            message = f"`{path}[{index}]` must be a part of type 'text' or 'image_url'"
            raise api_error("INVALID_REQUEST", message)
        if kind == "image_url":
            images.append(_image(part, f"{path}[{index}].image_url"))
        elif isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            raise api_error("INVALID_REQUEST", f"`{path}[{index}].text` must be text")
    return Content("".join(texts), images)


def is_content(value: Any) -> bool:
    """Whether a value of any kind is a list of well-formed parts, and not just some list."""
    return isinstance(value, list) and bool(value) and all(map(_is_part, value))


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


def _is_part(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    kind = value.get("type")
    return (kind == "text" and isinstance(value.get("text"), str)) or (
        kind == "image_url" and isinstance(value.get("image_url"), dict)
    )


def _image(part: dict[str, Any], path: str) -> Attachment:
    image = part.get("image_url", part.get("imageUrl"))
    url = image.get("url") if isinstance(image, dict) else None
    if not isinstance(url, str):
        raise api_error("INVALID_REQUEST", f"`{path}` must be `{{url: …}}`")
    if url[:5].lower() == "data:":
        message = "must be an https:// address: images inside of a request (`data:`) are not taken"
        raise api_error("INVALID_ATTACHMENT", f"`{path}.url` {message}")
    if (mistake := url_mistake(url)) is not None:
        raise api_error("INVALID_ATTACHMENT", f"`{path}.url` {mistake}")
    suffix = PurePosixPath(urlsplit(url).path).suffix.lower()
    return Attachment(url=url, mime_type=_TYPES.get(suffix, USUAL_TYPE))
