"""What a worker process does to redact large values.

Regular expressions over megabytes hold Python up for as long as a second each, and with it all callers of the
server. Here they hold up one run. `redaction_client` asks for it.
"""

import functools

import msgspec

from runglass.engine.capture.snapshots import shortened, shortened_error
from runglass.redact import Redactor, Rules

_RULES_KEPT = 4


class RedactionRequest(msgspec.Struct, frozen=True, array_like=True):
    """A value to shorten to `limit_bytes`, by these rules, or an error that may repeat secrets of `given`."""

    value: msgspec.Raw
    given: list[msgspec.Raw] | None
    limit_bytes: int
    rules: Rules


class RedactionReply(msgspec.Struct, frozen=True, array_like=True):
    """The shortened JSON. `late` are patterns that have taken too long."""

    captured: msgspec.Raw
    truncated: bool
    late: list[str]


_redactor_of = functools.lru_cache(maxsize=_RULES_KEPT)(
    lambda rules: Redactor(**msgspec.structs.asdict(rules))
)
_decoder = msgspec.json.Decoder(RedactionRequest)


def answered(message: bytes) -> bytes:
    """The reply to a `RedactionRequest`, both as JSON."""
    ask = _decoder.decode(message)
    redactor, value, truncated = _redactor_of(ask.rules), msgspec.json.decode(ask.value), False
    if ask.given is None:
        captured, truncated = shortened(
            bytes(ask.value), value, limit_bytes=ask.limit_bytes, redactor=redactor
        )
    else:
        given = [msgspec.json.decode(each) for each in ask.given]
        captured = shortened_error(value, given, limit_bytes=ask.limit_bytes, redactor=redactor)
    return msgspec.json.encode(RedactionReply(msgspec.Raw(captured), truncated, redactor.own.late))
