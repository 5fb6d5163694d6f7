"""What a worker process does to redact large values.

Regular expressions over megabytes hold Python up for as long as a second each, and with it all callers of the
server. Here they hold up one run. `redaction_client` asks for it.
"""

import functools
from typing import assert_never

import msgspec

from runglass.engine.capture.snapshots import shortened, shortened_error
from runglass.redact import Redactor, Rules

_RULES_KEPT = 4


class Shorten(msgspec.Struct, frozen=True, tag=True):
    """A value as it is kept."""

    value: msgspec.Raw


class ShortenError(msgspec.Struct, frozen=True, tag=True):
    """An error as it is kept; it may repeat secrets of the input."""

    detail: msgspec.Raw
    given: list[msgspec.Raw]


class RedactionRequest(msgspec.Struct, frozen=True, array_like=True):
    """A task: shorten to `limit_bytes`, by these rules."""

    task: Shorten | ShortenError
    limit_bytes: int
    rules: Rules


class RedactionReply(msgspec.Struct, frozen=True, array_like=True):
    """The shortened JSON. `late` are patterns that have taken too long."""

    captured: msgspec.Raw = msgspec.Raw(b"null")
    truncated: bool = False
    late: list[str] = []


_redactor_of = functools.lru_cache(maxsize=_RULES_KEPT)(
    lambda rules: Redactor(**msgspec.structs.asdict(rules))
)
_decoder = msgspec.json.Decoder(RedactionRequest)


def answered(message: bytes) -> bytes:
    """The reply to a `RedactionRequest`, both as JSON."""
    ask = _decoder.decode(message)
    redactor, task = _redactor_of(ask.rules), ask.task
    truncated = False
    match task:
        case Shorten():
            encoded = bytes(task.value)
            value = msgspec.json.decode(encoded)
            captured, truncated = shortened(encoded, value, limit_bytes=ask.limit_bytes, redactor=redactor)
        case ShortenError():
            given = [msgspec.json.decode(each) for each in task.given]
            detail = msgspec.json.decode(task.detail)
            captured = shortened_error(detail, given, limit_bytes=ask.limit_bytes, redactor=redactor)
        case _:
            assert_never(task)
    return msgspec.json.encode(RedactionReply(msgspec.Raw(captured), truncated, redactor.own.late))
