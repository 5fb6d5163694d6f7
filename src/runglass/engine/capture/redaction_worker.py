"""The process that redacts large values: `python -m runglass.engine.capture.redaction_worker MEMORY_LIMIT`.

Regular expressions over megabytes hold Python up for as long as a second each, and with it all callers of the
server. Here they hold up one run. `redaction_client` starts the process and replaces it.
"""

import functools
import gc
import sys
from typing import assert_never

import msgspec

from runglass.engine.capture.redaction import Redactor, Rules
from runglass.engine.capture.snapshots import shortened, shortened_error
from runglass.engine.workers.limits import LONG_NICE, limit_cpu, work

_RULES_KEPT = 4


class Shorten(msgspec.Struct, frozen=True, tag=True):
    """A value as it is kept."""

    value: msgspec.Raw


class ShortenError(msgspec.Struct, frozen=True, tag=True):
    """An error as it is kept; it may repeat secrets of the input."""

    detail: msgspec.Raw
    given: list[msgspec.Raw]


class RedactionRequest(msgspec.Struct, frozen=True, array_like=True):
    """A task: shorten to `limit_bytes`, by these rules, in so many seconds of the processor."""

    task: Shorten | ShortenError
    limit_bytes: int
    rules: Rules
    cpu_limit_s: float


class RedactionReply(msgspec.Struct, frozen=True, array_like=True):
    """The shortened JSON, or that the memory was too small. `late` are patterns that have taken too long."""

    captured: msgspec.Raw = msgspec.Raw(b"null")
    truncated: bool = False
    late: list[str] = []
    out_of_memory: bool = False


_redactor_of = functools.lru_cache(maxsize=_RULES_KEPT)(Redactor.by)
_decoder = msgspec.json.Decoder(RedactionRequest)


def answered(message: bytes) -> bytes:
    """The reply to a `RedactionRequest`, both as JSON."""
    limit_cpu(60.0)
    try:
        ask = _decoder.decode(message)
        limit_cpu(ask.cpu_limit_s)
        return msgspec.json.encode(_performed(ask))
    except (MemoryError, RecursionError):
        return msgspec.json.encode(RedactionReply(out_of_memory=True))


def _performed(ask: RedactionRequest) -> RedactionReply:
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
    return RedactionReply(msgspec.Raw(captured), truncated, redactor.late_patterns)


if __name__ == "__main__":
    # JSON holds no cycles, and to look for some in a million new objects takes longer than to make them.
    gc.disable()
    # Values redacted here are large, and only their own run waits for them.
    work(answered, memory_limit_bytes=int(sys.argv[1]), nice=LONG_NICE)
