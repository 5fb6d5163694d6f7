"""The text that the demo reads: the story that comes with it, or a file of the user's."""

from importlib.resources import files
from pathlib import Path

from runglass.cli.exit_codes import UsageError

LIMIT_BYTES = 2_000_000


def story() -> str:
    """The story that comes with Runglass."""
    return files("runglass.cli").joinpath("story.txt").read_text(encoding="utf-8")


def read_text(file: Path) -> str:
    """The text of a file, line ends as LF. Raises UsageError for what is not a text, empty or too large."""
    try:
        with file.open("rb") as opened:
            # One byte more than allowed tells a file that is too large, however large it is.
            data = opened.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{str(file)!r} cannot be read: {error.strerror or error}") from error
    if len(data) > LIMIT_BYTES:
        raise UsageError(f"{str(file)!r} is too large for the demo: it reads up to {LIMIT_BYTES:,} bytes")
    if b"\0" in data:
        raise UsageError(f"{str(file)!r} is not a plain text: it holds zero bytes; save it as UTF-8 text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{str(file)!r} is not UTF-8 text: byte {error.start} (0x{data[error.start]:02X}) fits nowhere; "
            "save it as UTF-8"
        ) from error
    if not text.strip():
        raise UsageError(f"there is no text in {str(file)!r}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def flow_file() -> bytes:
    """The flow file of the demo."""
    return files("runglass.cli").joinpath("demo.yaml").read_bytes()
