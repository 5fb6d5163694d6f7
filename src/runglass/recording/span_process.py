"""What a process that reads spans does, as `span_reader` asks. Prices are loaded before it is forked."""

from functools import lru_cache

import msgspec

from runglass.engine.capture.capture import Capture
from runglass.recording.dialects import load_prices
from runglass.recording.otlp import NotOtlp, decode
from runglass.recording.span_worker import ANSWER_BYTES, ReadReply, ReadRequest, pieces_of
from runglass.redact import Redactor, Rules


@lru_cache(maxsize=1)
def _capture_of(rules: Rules, limit_bytes: int) -> Capture:
    redactor = Redactor(**msgspec.structs.asdict(rules))
    return Capture("redacted", limit_bytes=limit_bytes, redactor=redactor)


_encode, _decoder = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(ReadRequest)
load_prices()


def answered(message: bytes) -> bytes:
    """The `ReadReply` to a `ReadRequest`."""
    found: list[bytes] = []
    ask = _decoder.decode(message)
    try:
        items = decode(ask.body, ask.signal, is_json=ask.is_json, skip=ask.skip)
        capture = _capture_of(ask.rules, ask.limit_bytes)
        for piece in pieces_of(items, flow=ask.flow, capture=capture):
            found.append(_encode(piece))
            if sum(map(len, found)) >= ANSWER_BYTES:
                return _encode(ReadReply(found, capture.redactor.own.late))
        return _encode(ReadReply(found, capture.redactor.own.late, is_all=True))
    except NotOtlp as error:
        return _encode(ReadReply(no_otlp=str(error)))
