"""What a process that reads spans does, as `span_reader` asks. Prices are loaded before it is forked."""

from functools import lru_cache

import msgspec

from runglass.recording.dialects import load_prices
from runglass.recording.otlp import NotOtlp, decode
from runglass.recording.span_worker import ANSWER_BYTES, ReadReply, ReadRequest, pieces_of
from runglass.redact import Redactor

_redactor_of = lru_cache(maxsize=1)(lambda rules: Redactor(**msgspec.structs.asdict(rules)))
_encode, _decoder = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(ReadRequest)
load_prices()


def answered(message: bytes) -> bytes:
    """The `ReadReply` to a `ReadRequest`."""
    found: list[bytes] = []
    ask = _decoder.decode(message)
    try:
        items = decode(ask.body, ask.signal, is_json=ask.is_json, skip=ask.skip)
        for piece in pieces_of(items, flow=ask.flow, redactor=_redactor_of(ask.rules)):
            found.append(_encode(piece))
            if sum(map(len, found)) >= ANSWER_BYTES:
                return _encode(ReadReply(found))
        return _encode(ReadReply(found, is_all=True))
    except NotOtlp as error:
        return _encode(ReadReply(no_otlp=str(error)))
