"""As `target`, for the decoder of what programs send over OTLP."""

import sys

import atheris  # type: ignore[import-untyped]  # in an environment of its own

with atheris.instrument_imports(include=["runglass.recording.otlp"]):
    import runglass.recording.otlp  # noqa: F401

from tests.otlp_standard import check

if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
