"""What atheris calls, over and over, with bytes that reach ever more of the decoder.

Run as `python -m tests.prove.fuzzing.target` with the options of libFuzzer, by an interpreter that has
atheris. The first bytes of an input say where the stream is cut and how large a frame may be.
"""

import sys

import atheris  # type: ignore[import-untyped]  # in an environment of its own

with atheris.instrument_imports(include=["runglass.wire.sse"]):
    import runglass.wire.sse  # noqa: F401

from tests.sse_standard import check, cut

CUTS = 4
HEAD = 1 + 2 * CUTS
NO_LIMIT = 1 << 20


def decode(data: bytes) -> None:
    """One input. Raises AssertionError if the decoder departs from the standard."""
    if len(data) < HEAD:
        return
    stream = data[HEAD:]
    borders = [int.from_bytes(data[start : start + 2]) for start in range(1, HEAD, 2)]
    check(stream, cut(stream, borders), limit=3 + data[0] if data[0] < 128 else NO_LIMIT)


if __name__ == "__main__":
    atheris.Setup(sys.argv, decode)
    atheris.Fuzz()
