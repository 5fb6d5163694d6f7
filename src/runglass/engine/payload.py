"""A step's input or output, with its JSON encoded once however often it is measured, stored or passed on."""

from typing import Any

import msgspec


class Payload:
    """A JSON value that must not be changed any more; None stands for the output of a step that failed."""

    __slots__ = ("_json", "value")

    def __init__(self, value: dict[str, Any] | None) -> None:
        self.value = value
        self._json: bytes | None = None

    @property
    def json(self) -> bytes:
        if self._json is None:
            self._json = msgspec.json.encode(self.value)
        return self._json
