"""Redacts large values in processes that can be killed, so that no other run waits for them.

A value that could not be redacted within the limits is not kept at all: a note says so in its place, and the
run goes on. Knows what to ask for and not how it is found: that is in `redaction_worker`.
"""

import logging
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import msgspec

from runglass.engine.capture.redaction_worker import RedactionReply, RedactionRequest, Shorten, ShortenError
from runglass.engine.capture.snapshots import left_out, not_kept, shortened, without_content, without_printed
from runglass.engine.workers.pool import LimitHit, WorkerPool
from runglass.engine.workers.process import LONG_NICE, WorkerNotStarted
from runglass.redact import Redactor

log = logging.getLogger(__name__)
_MEGABYTE = 1_000_000
_decoder = msgspec.json.Decoder(RedactionReply)


class RedactionClient:
    """A pool of processes that redact. A context manager, for any number of values at once.

    For each begun megabyte of a value a process may take `time_limit_ms` of the processor, and it may take
    `memory_limit_bytes` of memory. A project's values are redacted one at a time.
    """

    def __init__(self, *, time_limit_ms: int = 4_000, memory_limit_bytes: int = 1 << 30) -> None:
        self._time_limit_ms = time_limit_ms
        self.pool = WorkerPool(
            "runglass.engine.capture.redaction_worker:answered",
            what="redaction",
            memory_limit_bytes=memory_limit_bytes,
            memory_setting="redaction_memory_limit_bytes",
            # What is redacted there is large, and only its own run waits for it.
            nice=LONG_NICE,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.pool.aclose()

    async def shortened(self, encoded: bytes, *, limit_bytes: int, redactor: Redactor) -> tuple[bytes, bool]:
        """`snapshots.shortened` of the value with this JSON; of one that hits a limit, a note."""
        try:
            answer = await self._asked(Shorten(msgspec.Raw(encoded)), len(encoded), limit_bytes, redactor)
        except (LimitHit, WorkerNotStarted) as error:
            _warn(error)
            return left_out(str(error), limit_bytes=limit_bytes)
        return bytes(answer.captured), answer.truncated

    async def shortened_error(
        self, detail: dict[str, Any], given: Sequence[bytes], *, limit_bytes: int, redactor: Redactor
    ) -> bytes:
        """`snapshots.shortened_error` of the error; of one that hits a limit, code and a note.

        `given` is JSON.
        """
        told = msgspec.json.encode(without_printed(detail))
        task = ShortenError(msgspec.Raw(told), list(map(msgspec.Raw, given)))
        try:
            answer = await self._asked(task, len(told) + sum(map(len, given)), limit_bytes, redactor)
        except (LimitHit, WorkerNotStarted) as error:
            _warn(error)
            note = {**without_content(detail), "message": not_kept(str(error))}
            return shortened(msgspec.json.encode(note), note, limit_bytes=limit_bytes, redactor=None)[0]
        return bytes(answer.captured)

    async def _asked(
        self, task: Shorten | ShortenError, size_bytes: int, limit_bytes: int, redactor: Redactor
    ) -> RedactionReply:
        limit_ms = self._time_limit_ms * max(1, math.ceil(size_bytes / _MEGABYTE))
        answer = await self.pool.call(
            partial(msgspec.json.encode, RedactionRequest(task, limit_bytes, redactor.rules)),
            _decoder.decode,
            what="to redact",
            limit_ms=limit_ms,
            setting="redaction_time_limit_ms",
        )
        redactor.own.warn_of(answer.late)
        return answer


def _warn(error: Exception) -> None:
    log.warning("something is not kept, as it could not be redacted: %s", error)
