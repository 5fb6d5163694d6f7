"""The content of a message: text, or a list of parts as several model providers take it.

A part is `{type: "text", text}` or `{type: "image_url", image_url: {url}}`. The texts are joined as they are;
an image is an attachment without a type of its own, within the same limits. The server fetches no URL.
"""

from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from runglass.errors import api_error
from runglass.server.requests.attachments import url_mistake
from runglass.wire.run_api import Attachment

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
