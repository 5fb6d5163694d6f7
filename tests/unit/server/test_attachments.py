"""Each limit of an attachment, at the limit and one past it."""

from typing import Any

import pytest

from runglass.errors import APIError
from runglass.server.requests.attachments import check_attachments, spell_attachments
from runglass.wire.run_api import Attachment


def image(**fields: Any) -> Attachment:
    return Attachment(**{"url": "https://example.org/a.png", "mime_type": "image/png", **fields})


def url_of(length: int) -> str:
    return "https://example.org/".ljust(length, "x")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"url": url_of(2048)},
        {"url": "https://user@[2001:db8::1]:8443/a%20b?c=d#e"},
        {"url": "HTTPS://example.org"},
        {"filename": "x" * 255},
        {"filename": "holiday. 1.png"},
        *({"mime_type": f"image/{kind}"} for kind in ("jpeg", "png", "webp", "gif")),
    ],
)
def test_valid_attachments_are_accepted(fields: dict[str, Any]) -> None:
    check_attachments([image(**fields)] * 10)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"kind": "base64"}, "kind"),
        ({"mime_type": "image/tiff"}, "mimeType"),
        ({"mime_type": "image/png; charset=x"}, "mimeType"),
        ({"mime_type": ""}, "mimeType"),
        ({"url": url_of(2049)}, "url"),
        ({"url": "http://example.org/a.png"}, "url"),
        ({"url": "data:image/png;base64,AAAA"}, "url"),
        ({"url": "file:///a.png"}, "url"),
        ({"url": "//example.org/a.png"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "https:///a.png"}, "url"),
        ({"url": "https://[bad/a.png"}, "url"),
        ({"url": "https://example.org/a b"}, "url"),
        ({"url": "https://example.org/a\n"}, "url"),
        ({"url": "ht\ntps://example.org"}, "url"),
        ({"url": ""}, "url"),
        ({"filename": "x" * 256}, "filename"),
        ({"filename": "a/b.png"}, "filename"),
        ({"filename": "a\\b.png"}, "filename"),
        ({"filename": "..png"}, "filename"),
    ],
)
def test_invalid_attachments_are_refused_with_their_place(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(APIError) as refused:
        check_attachments([image(), image(**fields)])
    assert (refused.value.code, refused.value.status) == ("INVALID_ATTACHMENT", 400)
    assert f"`attachments[1].{named}`" in refused.value.message


def test_eleven_attachments_are_refused() -> None:
    with pytest.raises(APIError, match="11 entries; at most 10"):
        check_attachments([image()] * 11)


def test_attachments_become_camel_case_without_nulls() -> None:
    given = [
        {"url": "u", "mime_type": "image/png", "filename": None},
        {"url": "u", "mimeType": "image/png", "mime_type": None, "kind": "url", "size": 3},
    ]
    assert spell_attachments(given) == [
        {"url": "u", "mimeType": "image/png"},
        {"url": "u", "mimeType": "image/png", "kind": "url", "size": 3},
    ]
    assert spell_attachments("x") == "x"
    with pytest.raises(APIError, match=r"`attachments\[0\]` must be an object"):
        spell_attachments(["https://example.org/a.png"])


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"url": None}, ".url` is missing"),
        ({"url": ["https://a"]}, ".url` must be text"),
        ({"mimeType": None}, ".mimeType` is missing"),
        ({"mimeType": 3}, ".mimeType` must be text"),
        ({"kind": True}, ".kind` must be text"),
        ({"filename": {}}, ".filename` must be text"),
    ],
)
def test_a_field_that_is_missing_or_no_text_is_refused_with_its_place(
    fields: dict[str, Any], named: str
) -> None:
    good = {"url": "https://example.org/a.png", "mimeType": "image/png"}
    with pytest.raises(APIError) as refused:
        spell_attachments([good, good | fields])
    assert (refused.value.code, refused.value.status) == ("INVALID_ATTACHMENT", 400)
    assert refused.value.message.startswith(f"`attachments[1]{named}")
