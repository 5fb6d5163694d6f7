"""What atheris calls, over and over, with bytes that reach ever more of a decoder.

Run as `python -m tests.prove.fuzzing.target streams|requests` with the options of libFuzzer, by an
interpreter that has atheris. The first bytes of a stream say where it is cut and how large a frame may be.
"""

import sys

import atheris  # type: ignore[import-untyped]  # in an environment of its own

with atheris.instrument_imports(include=["runglass.wire.sse", "runglass.recording.otlp"]):
    import runglass.recording.otlp
    import runglass.wire.sse  # noqa: F401

from tests import otlp_standard, sse_standard

CUTS = 4
HEAD = 1 + 2 * CUTS
NO_LIMIT = 1 << 20


def decode(data: bytes) -> None:
    """One input. Raises AssertionError if the decoder departs from the standard."""
    if len(data) < HEAD:
        return
    stream = data[HEAD:]
    borders = [int.from_bytes(data[start : start + 2]) for start in range(1, HEAD, 2)]
    limit = 3 + data[0] if data[0] < 128 else NO_LIMIT
    sse_standard.check(stream, sse_standard.cut(stream, borders), limit=limit)


if __name__ == "__main__":
    _program, what, *options = sys.argv
    atheris.Setup([_program, *options], decode if what == "streams" else otlp_standard.check)
    atheris.Fuzz()
