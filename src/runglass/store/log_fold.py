"""The stored summary of a run that an earlier version wrote, with what later versions derive from its log.

Migrations of both stores fill it in, each with the events as it keeps them.
"""

from typing import Any

import msgspec

from runglass.log.events import decode_event
from runglass.log.fold import DAMAGE, TraceFold


class FoldedSummary:
    """A run's summary with what its events, in their order, add up to; as it was if they cannot be read."""

    def __init__(self) -> None:
        self._summary = b""
        self._fold = TraceFold()
        self._is_readable = True

    def step(self, summary: bytes, event: bytes) -> None:
        self._summary = summary
        try:
            if self._is_readable:
                self._fold.apply(decode_event(event))
        except DAMAGE:
            self._is_readable = False

    def finalize(self) -> bytes:
        try:
            known = msgspec.json.decode(without_nulls(self._summary), type=dict[str, Any])
        except DAMAGE:
            return self._summary
        # What stands in the row alone, such as the slug in logs that did not tell it, stays.
        told = msgspec.to_builtins(self._fold.summary) if self._is_readable else {}
        return msgspec.json.encode(known | told)


def without_nulls(data: bytes) -> bytes:
    """A JSON object without those of its own members that are null; what cannot be read stays as it is."""
    try:
        members = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except DAMAGE:
        return data
    return msgspec.json.encode({name: value for name, value in members.items() if bytes(value) != b"null"})
