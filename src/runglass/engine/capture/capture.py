"""What is kept of the content of a run: decided when it starts, and then asked for each value.

`capture_of_run` decides once, and the run stores that. A `Capture` says for each input, output and error what
the trace keeps of it. Knows nothing of steps and events: values and their JSON in, snapshots out.
"""

from collections.abc import Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

import msgspec

from runglass.engine.capture.redaction_client import RedactionClient
from runglass.engine.capture.snapshots import left_out, shortened, shortened_error, without_content
from runglass.engine.payload import Payload, Snapshot
from runglass.limits.offload import offload_in_turn
from runglass.redact import Redactor
from runglass.wire.run_api import CaptureFailed, CaptureMode

__all__ = ["Capture", "Redactor", "RunCapture", "Snapshot", "capture_of_run"]

_QUICK_BYTES = 64 * 1024
"""As much is redacted on the event loop, in some milliseconds."""
_QUICK_GIVEN_BYTES = 4 * 1024
"""As much is searched on the event loop for values that an error may repeat."""


class CaptureSettings(Protocol):
    """What a flow, its project or the server says; None where it says nothing."""

    @property
    def capture(self) -> CaptureMode | None: ...
    @property
    def capture_failed(self) -> CaptureFailed | None: ...
    @property
    def capture_sample(self) -> float | None: ...


class RunCapture(NamedTuple):
    """What one run keeps: the mode of its content, and that of its outputs where it fails."""

    mode: CaptureMode
    failed: CaptureFailed


def capture_of_run(run_id: str, *settings: CaptureSettings, traced: bool = False) -> RunCapture:
    """Decides what a new run keeps: `settings` are its flow's, its project's and the server's, which say all.

    The first that says something holds. A run whose caller asks for its trace, and one of the sample, keep
    everything where the mode is `metadata_only`; `redacted` and `off` stay as they are.
    """
    mode = next(each.capture for each in settings if each.capture is not None)
    failed = next(each.capture_failed for each in settings if each.capture_failed is not None)
    share = next(each.capture_sample for each in settings if each.capture_sample is not None)
    # By the id, so that each process comes to the same.
    is_sampled = int.from_bytes(blake2b(run_id.encode(), digest_size=8).digest()) < share * 2.0**64
    if mode == "metadata_only" and (traced or is_sampled):
        mode = "full"
    return RunCapture(mode, failed)


class Capture:
    """Takes snapshots in one mode. `limit_bytes`, at least 256, bounds a snapshot as JSON.

    Large values are redacted by `redaction_client`, or without these in a thread. Its methods take
    the JSON that msgspec makes of the value, so that it is encoded once only.
    """

    def __init__(
        self,
        mode: CaptureMode,
        failed: CaptureFailed = "off",
        *,
        limit_bytes: int = 262_144,
        redactor: Redactor | None = None,
        redactions: RedactionClient | None = None,
    ) -> None:
        self.mode = mode
        self.limit_bytes = limit_bytes
        self.keeps_snapshots = mode in ("redacted", "full")
        """Whether the inputs and outputs of steps that end well are kept."""
        self.keeps_failures = mode != "off"
        """Whether the input of an attempt that failed is kept, and its error with what it says."""
        self.of_failed: Capture | None = None
        """How outputs are kept where the run fails; None where that makes no difference."""
        if mode == "metadata_only" and failed != "off":
            self.of_failed = Capture(
                failed, limit_bytes=limit_bytes, redactor=redactor, redactions=redactions
            )
        self.redactor = redactor or Redactor()
        self._redactions = redactions
        self._redactor_of_mode = self.redactor if mode == "redacted" else None
        self._rules = (mode == "redacted", limit_bytes, self.redactor)
        self._shortened = partial(shortened, limit_bytes=limit_bytes, redactor=self._redactor_of_mode)
        self._quick_bytes = _QUICK_BYTES if mode == "redacted" else limit_bytes

    def size(self, payload: Payload) -> int | None:
        """The size to record; None where the mode is `off`."""
        return None if self.mode == "off" else payload.size_bytes

    def keeps_whole(self, size_bytes: int, *, is_harmless: bool) -> bool:
        """Whether so many bytes of JSON are kept as they are; `is_harmless` ones have no secrets."""
        return (
            self.keeps_snapshots
            and (is_harmless or self._redactor_of_mode is None)
            and size_bytes <= min(self._quick_bytes, self.limit_bytes)
        )

    async def text(self, text: str) -> str:
        """A name that comes from outside: every mode but `full` keeps it without its secrets."""
        if self.mode == "full":
            return text
        if len(text) > _QUICK_BYTES:
            return await offload_in_turn(partial(self.redactor.text, text))
        return self.redactor.text(text)

    async def prepare(self, payload: Payload, *, failed: bool = False) -> None:
        """Makes the payload's JSON, and looks through a large one, off the event loop where that takes long.

        Its snapshots cost next to nothing any more. More modes keep the input of an attempt that `failed`.
        """
        if payload.captured is not None:
            # As the output of the step before.
            return
        if payload.is_slow:
            await offload_in_turn(lambda: payload.json)
        is_kept = self.keeps_failures if failed else self.keeps_snapshots
        if not is_kept or payload.size_bytes <= self._quick_bytes:
            return
        encoded = payload.json
        if self.mode == "redacted" and self._redactions is not None:
            data, truncated = await self._redactions.shortened(
                encoded, limit_bytes=self.limit_bytes, redactor=self.redactor
            )
        else:
            # A large payload may be put away meanwhile.
            value = payload.value if payload.holding is None else None
            data, truncated = await offload_in_turn(
                lambda: self._shortened(encoded, msgspec.json.decode(encoded) if value is None else value)
            )
        payload.captured = (self._rules, Snapshot(msgspec.Raw(data), len(encoded), truncated))

    def snapshot(self, payload: Payload) -> Snapshot:
        """Of an input or output; costs next to nothing where the mode keeps none."""
        if not self.keeps_snapshots:
            return Snapshot(None, self.size(payload), truncated=False)
        return self.kept(payload)

    def kept(self, payload: Payload) -> Snapshot:
        """Of what every mode but `off` keeps, such as the input of an attempt that failed."""
        if not self.keeps_failures:
            return Snapshot(None, None, truncated=False)
        if payload.captured is not None and payload.captured[0] == self._rules:
            return payload.captured[1]
        size_bytes = payload.size_bytes
        if self.mode == "redacted" and self._redactions is not None and size_bytes > _QUICK_BYTES:
            # All that is large is prepared, but where the run is cut off before or meanwhile.
            data, truncated = left_out("its run was interrupted", limit_bytes=self.limit_bytes)
        else:
            data, truncated = self._shortened(payload.json, payload.value)
        snapshot = Snapshot(msgspec.Raw(data), size_bytes, truncated)
        payload.captured = (self._rules, snapshot)
        return snapshot

    async def error_of(self, detail: dict[str, Any], given: Sequence[Payload]) -> msgspec.Raw:
        """As `error`, for one that may repeat parts of `given`; off the event loop where that is large."""
        if self.mode != "redacted":
            return self.error(detail)
        is_quick = sum(each.size_bytes for each in given) <= _QUICK_GIVEN_BYTES
        if self._redactions is None or (is_quick and len(msgspec.json.encode(detail)) <= _QUICK_BYTES):
            return self.error(detail, [each.value for each in given])
        captured = await self._redactions.shortened_error(
            detail,
            [each.json for each in given],
            limit_bytes=self.limit_bytes,
            redactor=self.redactor,
        )
        return msgspec.Raw(captured)

    def error(self, detail: dict[str, Any], given: Any = None) -> msgspec.Raw:
        """An error as it is kept: like the input that led to it, and cut to the same limit.

        `given` is the input of the step: a secret under one of its keys must not come back in the error.
        In mode `off` only `code`, `line`, `retryAfterMs` and, where Python itself has it, the exception's
        `type` are kept.
        """
        if not self.keeps_failures:
            return msgspec.Raw(msgspec.json.encode(without_content(detail)))
        return msgspec.Raw(
            shortened_error(detail, given, limit_bytes=self.limit_bytes, redactor=self._redactor_of_mode)
        )
