"""What a trace keeps of inputs, outputs and errors, by the capture mode.

Knows nothing of steps and events: values and their JSON in, snapshots out.
"""

import asyncio
import builtins
from collections.abc import Collection
from typing import Any, NamedTuple

import msgspec

from runglass.engine.cutting import cut
from runglass.engine.payload import Payload
from runglass.engine.redaction import Redactor
from runglass.execution import CaptureMode

__all__ = ["Capture", "Redactor", "Snapshot", "raise_for_trace"]

_QUICK_BYTES = 64 * 1024
"""As much is redacted on the event loop, in some milliseconds."""
_EXCEPTIONS = frozenset(
    name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, Exception)
)
"""A name beside these is the caller's or the author's own, and may say anything."""


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
        self.limit_bytes = limit_bytes
        self._redactor = redactor or Redactor()

    @property
    def keeps_snapshots(self) -> bool:
        """Whether the inputs and outputs of steps that end well are kept."""
        return self.mode in ("redacted", "full")

    @property
    def keeps_failures(self) -> bool:
        """Whether the input of an attempt that failed is kept, and its error with what it says."""
        return self.mode != "off"

    def size(self, payload: Payload) -> int | None:
        """The size to record; None where the mode is `off`."""
        return None if self.mode == "off" else payload.size_bytes

    async def prepare(self, payload: Payload) -> None:
        """Looks through a large payload off the event loop, so that its snapshots cost nothing any more."""
        if self.keeps_snapshots:
            await self.prepare_failed(payload)

    async def prepare_failed(self, payload: Payload) -> None:
        """Like `prepare`, for the input of an attempt that failed, which more modes keep."""
        if not self.keeps_failures or payload.kept is not None:
            return
        if payload.size_bytes > (_QUICK_BYTES if self.mode == "redacted" else self.limit_bytes):
            kept = await asyncio.to_thread(lambda: self._shortened(payload.json, payload.value))
            payload.kept = (self._rules, kept)

    def snapshot(self, payload: Payload) -> Snapshot:
        """Of an input or output; costs next to nothing where the mode keeps none."""
        if not self.keeps_snapshots:
            return Snapshot(None, self.size(payload), truncated=False)
        return self._kept(payload)

    def failed_input(self, payload: Payload) -> Snapshot:
        """Of the input of an attempt that failed: in every mode but `off`, so that it can be understood."""
        return self._kept(payload) if self.keeps_failures else Snapshot(None, None, truncated=False)

    def secrets_in(self, given: Any) -> set[str]:
        """What must not come back in an error of a step that was given this, where errors are redacted."""
        return self._redactor.secrets_in(given) if self.mode == "redacted" else set()

    def error(
        self, detail: dict[str, Any], given: Any = None, *, secrets: Collection[str] = ()
    ) -> msgspec.Raw:
        """What is kept of an error: all of it like the input that led to it, and cut to the same limit.

        `given` is what the step was given: a secret that it tells by a key must not come back in the error,
        nor one of `secrets`.
        In mode `off` only `code`, `line` and, where Python itself has it, the exception's `type` are kept.
        """
        if not self.keeps_failures:
            return msgspec.Raw(msgspec.json.encode(_without_content(detail)))
        if self.mode == "redacted":
            # Whatever a program prints is its author's choice, and nothing marks the secrets in it.
            detail = {key: value for key, value in detail.items() if key != "printed"}
            detail = self._redactor.strike(detail, {*secrets, *self._redactor.secrets_in(given)})
        data, _ = self._shortened(msgspec.json.encode(detail), detail)
        return msgspec.Raw(data)

    @property
    def _rules(self) -> tuple[bool, int, Redactor]:
        return self.mode == "redacted", self.limit_bytes, self._redactor

    def _kept(self, payload: Payload) -> Snapshot:
        if payload.kept is None or payload.kept[0] != self._rules:
            payload.kept = (self._rules, self._shortened(payload.json, payload.value))
        data, truncated = payload.kept[1]
        return Snapshot(msgspec.Raw(data), len(payload.json), truncated)

    def _shortened(self, encoded: bytes, value: Any) -> tuple[bytes, bool]:
        """What is kept of the value as JSON, and whether it was cut to the limit."""
        # Redacted before it is cut: a secret that the cut goes through would no longer look like one.
        if self.mode == "redacted" and self._redactor.may_hold_secrets(encoded):
            value = self._redactor.redact(value)
            encoded = msgspec.json.encode(value)
        if len(encoded) <= self.limit_bytes:
            return encoded, False
        return cut(value, self.limit_bytes), True


def _without_content(detail: dict[str, Any]) -> dict[str, Any]:
    kept = {"code": detail.get("code")}
    exception, line = detail.get("exception"), detail.get("line")
    if isinstance(exception, str) and exception in _EXCEPTIONS:
        kept["type"] = exception
    if type(line) is int:
        kept["line"] = line
    return kept


def raise_for_trace(mode: CaptureMode) -> CaptureMode:
    """The mode of a run whose caller asks for full snapshots; `redacted` and `off` stay as they are."""
    return "full" if mode == "metadata_only" else mode
