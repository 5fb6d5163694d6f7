"""Large JSON bodies, decoded without keeping everybody waiting.

Decoding is native code that lets nobody else in before it has ended, in whatever thread it runs. So a body of
very many values is refused before it is read, and the garbage collector stands still meanwhile: it would look
through a million new objects again and again, which takes ten times as long, and JSON holds no cycles.
"""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from runglass.errors import api_error

SMALL_BYTES = 128 * 1024
"""What is decoded in a few milliseconds, whatever it holds."""

_lock = threading.Lock()
_pauses = 0


def decode_body(body: bytes, *, most_values: int) -> Any:
    """The value in a body. Raises INVALID_REQUEST for more values than that, and what msgspec raises.

    Every comma and opening bracket is counted as a value, those in texts too.
    """
    if len(body) <= SMALL_BYTES:
        return msgspec.json.decode(body)
    values = body.count(b",") + body.count(b"[") + body.count(b"{")
    if values > most_values:
        raise api_error(
            "INVALID_REQUEST",
            f"the body has about {values:,} values; at most {most_values:,} are taken"
            " (setting body_values_limit)",
        )
    with _gc_paused():
        return msgspec.json.decode(body)


@contextmanager
def _gc_paused() -> Iterator[None]:
    global _pauses
    with _lock:
        _pauses += 1
        was_on = _pauses > 1 or gc.isenabled()
        gc.disable()
    try:
        yield
    finally:
        with _lock:
            _pauses -= 1
            if not _pauses and was_on:
                # All that there is counts as old now, so that the next small collection does not look at it.
                gc.freeze()
                gc.unfreeze()
                gc.enable()
