"""Redacts large values in processes that can be killed, so that no other run waits for them.

A value that could not be redacted within the limits is not kept at all: a note says so in its place, and the
run goes on. Knows what to ask for and not how it is found: that is in `redaction_worker`.
"""

import logging
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from runglass.config.settings import USUAL, Settings
from runglass.engine.capture.redaction_worker import RedactionReply, RedactionRequest
from runglass.engine.capture.snapshots import left_out, not_kept, shortened, without_content, without_printed
from runglass.engine.workers.pool import LimitHit, WorkerPool
from runglass.engine.workers.process import LONG_NICE, WorkerNotStarted
from runglass.redact import Redactor

log = logging.getLogger(__name__)
_MEGABYTE = 1_000_000
_decoder = msgspec.json.Decoder(RedactionReply)


class RedactionClient(WorkerPool):
    """A pool of processes that redact.

    The time limit of the settings is for each begun megabyte of a value. A project's values are redacted one
    at a time.
    """

    def __init__(self, settings: Settings = USUAL) -> None:
        self._time_limit_ms = settings.redaction_time_limit_ms
        super().__init__(
            "runglass.engine.capture.redaction_worker:answered",
            what="redaction",
            memory_limit_bytes=settings.redaction_memory_limit_bytes,
            memory_setting="redaction_memory_limit_bytes",
            # What is redacted there is large, and only its own run waits for it.
            nice=LONG_NICE,
        )

    async def shortened(self, encoded: bytes, *, limit_bytes: int, redactor: Redactor) -> tuple[bytes, bool]:
        """`snapshots.shortened` of the value with this JSON; of one that hits a limit, a note."""
        answer = await self._asked(encoded, None, limit_bytes, redactor)
        if isinstance(answer, str):
            return left_out(answer, limit_bytes=limit_bytes)
        return bytes(answer.captured), answer.truncated

    async def shortened_error(
        self, detail: dict[str, Any], given: Sequence[bytes], *, limit_bytes: int, redactor: Redactor
    ) -> bytes:
        """`snapshots.shortened_error` of the error; of one that hits a limit, code and a note.

        `given` is JSON.
        """
        told = msgspec.json.encode(without_printed(detail))
        answer = await self._asked(told, given, limit_bytes, redactor)
        if isinstance(answer, str):
            note = {**without_content(detail), "message": not_kept(answer)}
            return shortened(msgspec.json.encode(note), note, limit_bytes=limit_bytes, redactor=None)[0]
        return bytes(answer.captured)

    async def _asked(
        self, value: bytes, given: Sequence[bytes] | None, limit_bytes: int, redactor: Redactor
    ) -> RedactionReply | str:
        """The reply; or why there is none."""
        beside = None if given is None else list(map(msgspec.Raw, given))
        ask = RedactionRequest(msgspec.Raw(value), beside, limit_bytes, redactor.rules)
        size_bytes = len(value) + sum(map(len, given or ()))
        limit_ms = self._time_limit_ms * max(1, math.ceil(size_bytes / _MEGABYTE))
        try:
            answer = await self.call(
                partial(msgspec.json.encode, ask),
                _decoder.decode,
                what="to redact",
                limit_ms=limit_ms,
                setting="redaction_time_limit_ms",
            )
        except (LimitHit, WorkerNotStarted) as error:
            log.warning("something is not kept, as it could not be redacted: %s", error)
            return str(error)
        redactor.own.warn_of(answer.late)
        return answer
