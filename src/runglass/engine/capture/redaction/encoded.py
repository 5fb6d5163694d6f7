"""Runs of a text that are Base64 or hexadecimal for another text."""

import base64
import binascii
import re
from collections.abc import Iterator

_RUN = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{16,}+={0,2}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_PART = re.compile(r"[A-Za-z0-9+]{16,}+={0,2}")
_HEX = re.compile(r"(?:0[xX])?((?:0[9aAdD]|[2-9a-fA-F][0-9a-fA-F]){8,}+)")
"""Bytes of a text: none of them is a control character."""
_TRIED_FIRST = 32
_LONGEST_NAME = 2000
_NO_TEXT = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd]")
_URL_SAFE = str.maketrans("-_", "+/")


def decoded_runs(text: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and decoded text of each run that decodes to a text. Time linear in the text."""
    for match in _RUN.finditer(text):
        start, end = match.span()
        run = match[0]
        if start and text[start - 1] == "\\" and run[0] in "bfnrt":
            # The text is JSON, and this the letter of an escape.
            start, run = start + 1, run[1:]
        if _UUID.fullmatch(run):
            continue
        decoded = _decoded(run)
        if decoded is not None:
            yield start, end, decoded
        elif len(run) <= _LONGEST_NAME and ("_" in run or "-" in run or "/" in run):
            # Perhaps a name or a path with a run in it.
            for part in _PART.finditer(run):
                decoded = _decoded(part[0])
                if decoded is not None:
                    yield start + part.start(), start + part.end(), decoded


def _decoded(run: str) -> str | None:
    hexadecimal = _HEX.fullmatch(run)
    if hexadecimal:
        return _text(bytes.fromhex(hexadecimal[1]))
    if run.isdigit():
        return None
    plain = run.translate(_URL_SAFE).rstrip("=")
    if len(plain) > _TRIED_FIRST and _text(_from_base64(plain[:_TRIED_FIRST]), whole=False) is None:
        return None
    return _text(_from_base64(plain))


def _from_base64(plain: str) -> bytes:
    if len(plain) % 4 == 1:
        plain = plain[:-1]
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4))
    except binascii.Error:
        return b""


def _text(data: bytes, *, whole: bool = True) -> str | None:
    """The text that the bytes are, in UTF-8 or UTF-16; None if they are no text."""
    encoding = "utf-16-le" if data[1:2] == b"\0" else "utf-8"
    try:
        decoded = data.decode(encoding, "strict" if whole else "ignore")
    except UnicodeDecodeError:
        return None
    if not whole and len(decoded) < len(data) // 3:
        return None
    return decoded if len(decoded) >= 6 and not _NO_TEXT.search(decoded) else None
