"""Reads requests: small ones here, others in a process that can be killed, and the event loop goes on.

A request that cannot be read within the limits is refused, and nothing of it is acknowledged. Knows what to
ask for and not how it is read: that is in `span_worker`, which `span_process` calls.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from itertools import islice

import msgspec

from runglass.engine.capture.capture import Capture
from runglass.engine.workers.pool import LimitHit, WorkerPool
from runglass.engine.workers.process import LONG_NICE, WorkerDied, WorkerNotStarted
from runglass.errors import api_error
from runglass.recording.dialects import load_prices
from runglass.recording.otlp import IN_PARTS, NotOtlp, Signal, decode
from runglass.recording.span_worker import Piece, ReadReply, ReadRequest, pieces_of

SMALL_BYTES, SMALL_SPANS = 32 * 1024, 32
"""Up to this size so many spans of a request are read on the event loop, in some milliseconds."""

_reply_of = msgspec.msgpack.Decoder(ReadReply)
_piece_of = msgspec.msgpack.Decoder(Piece)


class SpanReader(WorkerPool):
    """A pool of processes that read.

    `capture` is that of runs with the mode `redacted`. For some megabytes of a request a process may take
    `time_limit_ms` of the processor, and it may take `memory_limit_bytes` of memory. Requests of a project
    that are not small are read one at a time.
    """

    def __init__(
        self, capture: Capture, *, time_limit_ms: int = 20_000, memory_limit_bytes: int = 1 << 30
    ) -> None:
        self._capture = capture
        self._time_limit_ms = time_limit_ms
        self._has_prices = False
        super().__init__(
            "runglass.recording.span_process:answered",
            what="spans",
            memory_limit_bytes=memory_limit_bytes,
            memory_setting="otlp_limit_bytes",
            # Only its sender waits for a request.
            nice=LONG_NICE,
        )

    async def pieces(
        self, body: bytes, signal: Signal, *, is_json: bool, flow: str | None, project_id: int
    ) -> AsyncIterator[Piece]:
        """What the request says, piece by piece; `flow` is the slug that it asks for.

        Raises NotOtlp, INVALID_REQUEST for one that takes too much, and UNAVAILABLE: it is to be sent again.
        """
        skip = 0
        if len(body) <= SMALL_BYTES:
            if not self._has_prices:
                await asyncio.to_thread(load_prices)
                self._has_prices = True
            items = decode(body, signal, is_json=is_json)
            for piece in pieces_of(islice(items, SMALL_SPANS), flow=flow, capture=self._capture):
                yield piece
                skip += piece.items
            if next(items, None) is None:
                return
        is_all = False
        while not is_all:
            rules, limit_bytes = self._capture.redactor.rules, self._capture.limit_bytes
            ask = ReadRequest(body, signal, is_json, flow, rules, limit_bytes, skip)
            reply = await self._asked(ask, project_id)
            if reply.no_otlp is not None:
                raise NotOtlp(reply.no_otlp)
            is_all = reply.is_all
            self._capture.redactor.own.warn_of(reply.late)
            for data in reply.pieces:
                piece = _piece_of.decode(data)
                yield piece
                skip += piece.items
                # Where all was refused nothing else has waited.
                await asyncio.sleep(0)

    async def _asked(self, ask: ReadRequest, project_id: int) -> ReadReply:
        try:
            return await self.call(
                partial(msgspec.msgpack.encode, ask),
                _reply_of.decode,
                what="to read the request",
                limit_ms=self._time_limit_ms,
                setting="otlp_limit_bytes",
                project_id=project_id,
            )
        except LimitHit as limit:
            died = limit.__cause__
            if not isinstance(died, WorkerDied) or died.cause != "unknown":
                message = (
                    f"to read the request takes more than {self._time_limit_ms:,} ms, or"
                    f" {self._memory_limit_bytes:,} bytes of memory; {IN_PARTS}"
                )
                raise api_error("INVALID_REQUEST", message) from limit
        except WorkerNotStarted as error:
            raise api_error("UNAVAILABLE", f"the request cannot be read: {error}; send it again") from error
        raise api_error("UNAVAILABLE", "the process that read the request was ended; send it again")
