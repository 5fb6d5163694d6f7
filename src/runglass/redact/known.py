"""Strikes known secrets from texts, in every form in which they may stand there, and from JSON values."""

import base64
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus

import msgspec

from runglass.redact.views import Span, lowered, positions, replaced, view_of

T = TypeVar("T")

_SHORTEST_ENCODED = 8
"""Characters of a secret whose encodings are looked for, and of an encoding that is long enough to tell."""


def strike_known(value: T, secrets: Iterable[str], mark: str) -> T:
    """A copy of a JSON value, or of a text, without the secrets; keys stay.

    They are found plain, quoted, escaped, reversed, in Base64 or hexadecimal, in upper or lower case.
    """
    forms = {lowered(form) for secret in secrets for form in _forms_of(secret)}

    def found(text: str) -> list[Span]:
        low = lowered(text)
        return [(start, start + len(form)) for form in forms for start in positions(low, form)]

    def struck(text: str) -> str:
        view = view_of(text)
        return replaced(text, found(text) + (list(map(view.origin, found(view.text))) if view else []), mark)

    changed: T = with_texts(value, struck)
    return changed


def _forms_of(secret: str) -> set[str]:
    """The secret as texts may have it. Of a short one only how it is quoted: others would be everywhere.

    All forms together are thirty times as long as the secret.
    """
    forms = {secret, repr(secret)[1:-1], msgspec.json.encode(secret).decode()[1:-1]}
    if len(secret) >= _SHORTEST_ENCODED:
        for plain in (secret, secret[::-1]):
            data = plain.encode("utf-8", "replace")
            encoded = {
                data.hex(),
                data.hex(" "),
                data.hex(":"),
                quote(plain, safe=""),
                quote_plus(plain),
                plain,
            }
            encoded |= {quote(plain), base64.b32encode(data).decode().rstrip("=")}
            encoded |= {form for ahead in range(3) for form in _base64(data, ahead)}
            forms |= {form for form in encoded if len(form) >= _SHORTEST_ENCODED}
    return forms


def _base64(data: bytes, ahead: int) -> set[str]:
    """How the bytes are written behind others, without the letters that depend on what is around them."""
    whole = base64.b64encode(b"\0" * ahead + data).decode()
    sure = whole[(0, 2, 3)[ahead] : (len(data) + ahead) // 3 * 4]
    return {sure, sure.replace("+", "-").replace("/", "_"), sure[::-1]}


def with_texts(value: Any, change: Callable[[str], object]) -> Any:
    """A copy of a JSON value with each text changed; keys stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: with_texts(inner, change) for key, inner in value.items()}
    return [with_texts(inner, change) for inner in value] if isinstance(value, list) else value
