"""Values and errors as a trace keeps them: JSON without secrets, cut to a limit.

Pure, so that a process can do it as well as this one. Knows no capture modes.
"""

import builtins
from typing import Any

import msgspec

from runglass.engine.capture.redaction import Redactor
from runglass.engine.capture.truncation import cut
from runglass.errors import RETRY_AFTER
from runglass.log.fold import PREVIEW_CHARS

_EXCEPTIONS = frozenset(
    name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, Exception)
)
"""A name beside these is the caller's or the author's own, and may say anything."""


def shortened(
    encoded: bytes, value: Any, *, limit_bytes: int, redactor: Redactor | None
) -> tuple[bytes, bool]:
    """The value as JSON to keep, and whether it was cut.

    `encoded` is the JSON of the value, as msgspec writes it.
    """
    # Redacted before it is cut: a secret that the cut goes through would no longer look like one.
    if redactor is not None and redactor.may_hold_secrets(encoded):
        value = redactor.redact(value)
        encoded = msgspec.json.encode(value)
    if len(encoded) <= limit_bytes:
        return encoded, False
    return cut(value, limit_bytes), True


def shortened_error(
    detail: dict[str, Any], given: Any, *, limit_bytes: int, redactor: Redactor | None
) -> bytes:
    """The error as JSON to keep. Secrets under keys of `given` are redacted in it, too."""
    if redactor is not None:
        detail = redactor.strike(without_printed(detail), redactor.secrets_in(given))
    return shortened(msgspec.json.encode(detail), detail, limit_bytes=limit_bytes, redactor=redactor)[0]


def left_out(why: str, *, limit_bytes: int) -> tuple[bytes, bool]:
    """A note as JSON for a value of which nothing may be kept, marked like what `cut` leaves out."""
    note = {"…": not_kept(why)}
    return shortened(msgspec.json.encode(note), note, limit_bytes=limit_bytes, redactor=None)[0], True


def not_kept(why: str) -> str:
    """The note in place of a value or an error that may not be kept."""
    return f"… [not kept, as it could not be redacted: {why}]"


def without_printed(detail: dict[str, Any]) -> dict[str, Any]:
    """The error without what its step printed: its author chose that, and nothing marks the secrets in it."""
    return {key: value for key, value in detail.items() if key != "printed"}


def without_content(detail: dict[str, Any]) -> dict[str, Any]:
    """Only `code`, `line`, `retryAfterMs` and, where Python itself has it, the exception's `type`."""
    harmless = {"code": detail.get("code")}
    exception = detail.get("exception")
    if isinstance(exception, str) and exception in _EXCEPTIONS:
        harmless["type"] = exception
    for name in ("line", RETRY_AFTER):
        if type(number := detail.get(name)) is int:
            harmless[name] = number
    return harmless


def preview(data: msgspec.Raw | None) -> str | None:
    """The beginning of JSON, if any: of an object whose only member is a text that text, else as it is."""
    if data is None:
        return None
    shown = bytes(data)
    if shown.startswith(b"{"):
        members = msgspec.json.decode(shown, type=dict[str, msgspec.Raw])
        if len(members) == 1 and (only := bytes(*members.values())).startswith(b'"'):
            shown = msgspec.json.decode(only, type=str).encode()
    # A character takes four bytes at most.
    text = " ".join(shown[: 8 * PREVIEW_CHARS].decode(errors="ignore").split())
    return text if len(text) <= PREVIEW_CHARS else text[: PREVIEW_CHARS - 1] + "…"
