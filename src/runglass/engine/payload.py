"""A step's input or output, with its JSON encoded once however often it is measured, stored or passed on."""

from collections.abc import Hashable
from typing import Any

import msgspec


class Payload:
    """A JSON value that must not be changed any more; None stands for the output of a step that failed.

    `kept` is what a trace keeps of it, behind the rules by which `Capture` made that: one payload is an
    output, the next input and the result, and is looked through for secrets only once.
    """

    __slots__ = ("_json", "kept", "value")

    def __init__(self, value: dict[str, Any] | None) -> None:
        self.value = value
        self.kept: tuple[Hashable, tuple[bytes, bool]] | None = None
        self._json: bytes | None = None

    @classmethod
    def encoded(cls, value: dict[str, Any] | None, data: bytes) -> "Payload":
        """The payload of a value whose JSON is there already."""
        payload = cls(value)
        payload._json = data
        return payload

    @property
    def json(self) -> bytes:
        if self._json is None:
            self._json = msgspec.json.encode(self.value)
        return self._json
