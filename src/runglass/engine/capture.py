"""What a trace keeps of inputs, outputs and errors: their size always, the rest by the capture mode.

Knows nothing of steps and events: values and their JSON in, snapshots out.
"""

from typing import Any, NamedTuple

import msgspec

from runglass.engine.cutting import cut
from runglass.engine.redaction import Redactor
from runglass.execution import CaptureMode

__all__ = ["Capture", "Redactor", "Snapshot", "raise_for_trace"]


class Snapshot(NamedTuple):
    """`data` is None where the mode keeps none; `size_bytes` is told before redacting and cutting."""

    data: msgspec.Raw | None
    size_bytes: int | None
    truncated: bool


class Capture:
    """Takes snapshots in one mode. `limit_bytes`, at least 256, is what a snapshot may measure as JSON.

    The JSON that its methods take is what msgspec makes of the value, so that it is encoded once only.
    """

    def __init__(
        self, mode: CaptureMode, *, limit_bytes: int = 262_144, redactor: Redactor | None = None
    ) -> None:
        self.mode = mode
        self._limit_bytes = limit_bytes
        self._redactor = redactor or Redactor()

    @property
    def keeps_snapshots(self) -> bool:
        """Whether the inputs and outputs of steps that end well are kept."""
        return self.mode in ("redacted", "full")

    def size(self, encoded: bytes) -> int | None:
        """The size to record; None where the mode is `off`."""
        return None if self.mode == "off" else len(encoded)

    def snapshot(self, encoded: bytes, value: Any) -> Snapshot:
        """Of an input or output; costs next to nothing where the mode keeps none."""
        if not self.keeps_snapshots:
            return Snapshot(None, self.size(encoded), truncated=False)
        return self._kept(encoded, value)

    def failed_input(self, encoded: bytes, value: Any) -> Snapshot:
        """Of the input of an attempt that failed: kept in every mode, so that it can be understood."""
        return self._kept(encoded, value)

    def error(self, detail: dict[str, Any]) -> msgspec.Raw:
        """An error, kept in every mode like the input that led to it, and cut to the same limit."""
        kept = self._kept(msgspec.json.encode(detail), detail).data
        assert kept is not None
        return kept

    def _kept(self, encoded: bytes, value: Any) -> Snapshot:
        size = self.size(encoded)
        # Redacted before it is cut: a secret that the cut goes through would no longer look like one.
        if self.mode == "redacted" and self._redactor.may_hold_secrets(encoded):
            value = self._redactor.redact(value)
            encoded = msgspec.json.encode(value)
        if len(encoded) <= self._limit_bytes:
            return Snapshot(msgspec.Raw(encoded), size, truncated=False)
        return Snapshot(msgspec.Raw(cut(value, self._limit_bytes)), size, truncated=True)


def raise_for_trace(mode: CaptureMode) -> CaptureMode:
    """The mode of a run whose caller asks for full snapshots; `redacted` and `off` stay as they are."""
    return "full" if mode == "metadata_only" else mode
