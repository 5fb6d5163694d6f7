"""A text as a reader or a decoder would take it, with the way back to the positions of the text itself.

Look-alike and wide letters become plain ones, invisible ones vanish, escapes (`%70`, `\\u0070`, `\\x70`,
`&#112;`) become their letters. Only single letters are changed, so that each span of the view has one of
the text. Runs that are Base64 or hexadecimal for another text are decoded one by one.
"""

import base64
import binascii
import functools
import io
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator

from runglass.redact.rules import PATTERNS, RULES

Span = tuple[int, int]


def replaced(text: str, spans: Iterable[Span], mark: str) -> str:
    """The text with the mark in place of the spans; those that touch share one. All else stays as it is."""
    shown: list[str] = []
    done = 0
    for start, end in sorted(spans):
        if end <= done:
            continue
        if start > done or not shown:
            shown += [text[done:start], mark]
        done = end
    return "".join([*shown, text[done:]]) if shown else text


def positions(text: str, part: str) -> Iterator[int]:
    """Where the part begins in the text, without those that overlap."""
    start = text.find(part)
    while start >= 0:
        yield start
        start = text.find(part, start + len(part))


def lowered(text: str) -> str:
    """Lower case at the same positions: the letters that would become two stay."""
    low = text.lower()
    if len(low) == len(text):
        return low
    return "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in text)


_LOOKS: dict[str, str] = {
    letter: plain
    for letters, plains in RULES["looks"].items()
    for letter, plain in zip(letters, plains, strict=True)
}
_ENTITIES = {"quot": '"', "apos": "'", "amp": "&", "lt": "<", "gt": ">"}
_AROUND = 1000
_BLOB_END = 600
"""So much stays of both ends of a blob."""


class View:
    """Another reading of a text. `origin` leads a span of the view back to the text."""

    def __init__(self, text: str, pieces: list[tuple[int, int, int, int]]) -> None:
        self.text = text
        # Of each piece that became longer or shorter: where it is in the view and in the text, from and to.
        self._pieces = pieces
        self._starts = [piece[0] for piece in pieces]

    def origin(self, span: Span) -> Span:
        """The span of the text; a letter that comes of a piece is the whole piece."""
        return self._back(span[0], end=False), self._back(span[1] - 1, end=True)

    def _back(self, position: int, *, end: bool) -> int:
        index = bisect_right(self._starts, position) - 1
        if index < 0:
            return position + end
        _, view_end, start, text_end = self._pieces[index]
        if position < view_end:
            return text_end if end else start
        return text_end + position - view_end + end


def view_of(text: str) -> View | None:
    """The plain reading of the text; None if it is the text itself. Time linear in the text."""
    pattern = _changing(text)
    return None if pattern is None or not pattern.search(text) else _viewed(text, pattern)


def views_around(text: str) -> Iterator[tuple[int, View]]:
    """Plain readings of the lines that have any, with where each begins; of a very long line a part."""
    pattern = _changing(text)
    if pattern is None:
        return
    begin = end = -1
    for match in pattern.finditer(text):
        if match.end() <= end - _AROUND // 2:
            continue
        start, stop = max(0, match.start() - _AROUND), match.end() + _AROUND
        line = text.rfind("\n", start, match.start()) + 1
        start = line or start
        after = text.find("\n", match.end(), stop)
        stop = after if after >= 0 else min(stop, len(text))
        if start > end and begin >= 0:
            yield begin, _viewed(text[begin:end], pattern)
            begin = start
        elif begin < 0:
            begin = start
        end = max(end, stop)
    if begin >= 0:
        yield begin, _viewed(text[begin:end], pattern)


def without_blobs(text: str) -> View | None:
    """The text without the inside of very long runs of letters, as pictures and files in Base64 are."""
    pieces: list[tuple[int, int, int, int]] = []
    shown: list[str] = []
    done = length = 0
    for match in PATTERNS["blob"].finditer(text):
        start, end = match.start() + _BLOB_END, match.end() - _BLOB_END
        shown.append(text[done:start])
        length += start - done
        pieces.append((length, length, start, end))
        done = end
    return View("".join([*shown, text[done:]]), pieces) if pieces else None


def _changing(text: str) -> re.Pattern[str] | None:
    """What has to be replaced in the text to get its plain reading."""
    special = "" if text.isascii() else "".join(special_letters(text))
    if special:
        return re.compile(f"{PATTERNS['escape'].pattern}|[{re.escape(special)}]")
    return PATTERNS["escape"] if "\\" in text or "%" in text or "&" in text else None


def _viewed(text: str, pattern: re.Pattern[str]) -> View:
    # A list of the parts would take sixty times as much as a text that is full of them.
    shown = io.StringIO()
    pieces: list[tuple[int, int, int, int]] = []
    done = length = 0
    for match in pattern.finditer(text):
        start, end = match.span()
        plain = plain_letter(match[0]) if end - start == 1 else _decoded(match[0])
        shown.write(text[done:start])
        shown.write(plain)
        length += start - done
        if len(plain) != end - start:
            # A letter in place of a letter moves nothing.
            pieces.append((length, length + len(plain), start, end))
        length += len(plain)
        done = end
    shown.write(text[done:])
    return View(shown.getvalue(), pieces)


def plain_word(word: str) -> str:
    """A short text, such as a key, in plain letters."""
    return word if word.isascii() else "".join(map(plain_letter, word))


def special_letters(text: str) -> list[str]:
    """The characters of a text that have a plain reading that may matter."""
    found = [letter for letter in set(text) if letter >= "\x80" and plain_letter(letter) != letter]
    scripts = [letter for letter in found if letter in _LOOKS]
    if scripts:
        # A text in Cyrillic or Greek is full of such letters: they matter beside Latin ones, and in words
        # that have no others and then read like a telling one.
        letters = "".join(scripts)
        mixed = re.search(rf"[A-Za-z0-9][{letters}]|[{letters}][A-Za-z0-9]", text)
        whole = rf"(?<!\w)[{letters}]{{3,}}+(?!\w)"
        if not mixed and not any(
            PATTERNS["telling"].search(plain_word(word).lower()) for word in re.findall(whole, text)
        ):
            found = [letter for letter in found if letter not in _LOOKS]
    return found


@functools.lru_cache(maxsize=4096)
def plain_letter(letter: str) -> str:
    if letter in _LOOKS:
        return _LOOKS[letter]
    if (
        unicodedata.category(letter) == "Cf"
        or "\ufe00" <= letter <= "\ufe0f"
        or letter in "\u034f\u115f\u3164"
    ):
        return ""
    if letter in "\u2010\u2011\u2012\u2013\u2212":
        return "-"
    plain = unicodedata.normalize("NFKC", letter)
    # Marks and fractions that become several characters hide no word.
    return plain if plain.isascii() and (len(plain) == 1 or plain.isalpha()) else letter


def _decoded(escape: str) -> str:
    if escape[0] == "\\":
        return chr(int(escape[2:], 16))
    if escape[0] == "%":
        return bytes.fromhex(escape.replace("%", "")).decode("utf-8", "replace")
    name = escape[1:-1]
    if name in _ENTITIES:
        return _ENTITIES[name]
    return chr(int(name[2:], 16) if name[1] in "xX" else int(name[1:]))


_TRIED_FIRST = 32
_LONGEST_NAME = 2000
_URL_SAFE = str.maketrans("-_", "+/")


def decoded_runs(text: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and decoded text of each run that decodes to a text. Time linear in the text."""
    for match in PATTERNS["encoded"].finditer(text):
        start, end = match.span()
        run = match[0]
        if start and text[start - 1] == "\\" and run[0] in "bfnrt":
            # The text is JSON, and this the letter of an escape.
            start, run = start + 1, run[1:]
        if PATTERNS["uuid"].fullmatch(run):
            continue
        decoded = _text_of_run(run)
        if decoded is not None:
            yield start, end, decoded
        elif len(run) <= _LONGEST_NAME and ("_" in run or "-" in run or "/" in run):
            # Perhaps a name or a path with a run in it.
            for part in PATTERNS["encoded_part"].finditer(run):
                decoded = _text_of_run(part[0])
                if decoded is not None:
                    yield start + part.start(), start + part.end(), decoded


def _text_of_run(run: str) -> str | None:
    hexadecimal = PATTERNS["hex"].fullmatch(run)
    if hexadecimal:
        return _text_of_bytes(bytes.fromhex(hexadecimal[1]))
    if run.isdigit():
        return None
    plain = run.translate(_URL_SAFE).rstrip("=")
    if len(plain) > _TRIED_FIRST and _text_of_bytes(_from_base64(plain[:_TRIED_FIRST]), whole=False) is None:
        return None
    return _text_of_bytes(_from_base64(plain))


def _from_base64(plain: str) -> bytes:
    if len(plain) % 4 == 1:
        plain = plain[:-1]
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4))
    except binascii.Error:
        return b""


def _text_of_bytes(data: bytes, *, whole: bool = True) -> str | None:
    """The text that the bytes are, in UTF-8 or UTF-16; None if they are no text."""
    encoding = "utf-16-le" if data[1:2] == b"\0" else "utf-8"
    try:
        decoded = data.decode(encoding, "strict" if whole else "ignore")
    except UnicodeDecodeError:
        return None
    if not whole and len(decoded) < len(data) // 3:
        return None
    return decoded if len(decoded) >= 6 and not PATTERNS["no_text"].search(decoded) else None
