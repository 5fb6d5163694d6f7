"""What decoding a trace adds to a process: `python -m bench.workers.decode_memory FILE trace|bare`."""

import gc
import sys
from pathlib import Path

import msgspec

from bench.answering import Message, answer
from bench.memory import own_memory, own_peak
from bench.shapes import BareTrace
from runglass.log.trace import Trace


def measure(_: Message) -> Message:
    data = Path(sys.argv[1]).read_bytes()
    shape: type[Trace] | type[BareTrace] = Trace if sys.argv[2] == "trace" else BareTrace
    decoder: msgspec.json.Decoder[Trace | BareTrace] = msgspec.json.Decoder(shape)
    gc.collect()
    before = own_memory()
    trace = decoder.decode(data)
    grown = max(own_memory(), own_peak()) - before
    return {"mb": grown / 1e6, "steps": len(trace.steps)}


if __name__ == "__main__":
    answer(measure)
