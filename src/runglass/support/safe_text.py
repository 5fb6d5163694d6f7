"""Makes texts of any origin fit for JSON, the log and messages. Knows nothing of where a text is from.

Halves of characters are what UTF-16 calls a lone surrogate, which no UTF-8 and so no JSON can carry. They
come in by escapes like `\\ud800`, by file names and arguments that are no UTF-8, and by texts that were cut
in the middle of an emoji. Texts of callers may also hold line breaks and other control characters, which
would forge lines in a log.
"""

import re
from collections.abc import Iterable
from itertools import islice
from typing import Any

HALF_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
"""The escape of half a character: what cuts texts by UTF-16 leaves it, and no JSON may have it."""
Path = tuple[str | int, ...]


def replace_surrogates(text: str) -> str:
    """Text that can be encoded: two halves of a character are joined, a single half is replaced."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def is_whole(text: str) -> bool:
    """Whether the text can be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """Text for a line of a log: invisible characters as escapes, and at most `MAX_LOGGED` characters."""
    if len(text) > MAX_LOGGED:
        text = f"{text[:MAX_LOGGED]}…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


MAX_LOGGED = 500
MAX_KNOWN = 300
"""The most names that a wrong one is compared with; each takes some 10 µs."""


def suggestion(word: Any, known: Iterable[Any]) -> str:
    """`; did you mean …?`, or nothing where no known word is near."""
    # difflib takes quadratic time, and no typed name is that long.
    if not isinstance(word, str) or len(word) > 64:
        return ""
    # Imported here: a slip is rare, and every client loads this file.
    from difflib import get_close_matches

    near = get_close_matches(word, [name for name in islice(known, MAX_KNOWN) if isinstance(name, str)], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def half_text(value: Any) -> tuple[str, Path] | None:
    """The first text, or key, in a JSON value that cannot be encoded, and where it is."""
    pending: list[tuple[Any, Path]] = [(value, ())]
    while pending:
        part, path = pending.pop()
        if isinstance(part, str):
            if not is_whole(part):
                return part, path
        elif isinstance(part, dict):
            for key in part:
                if isinstance(key, str) and not is_whole(key):
                    return key, (*path, key)
            pending += [(inner, (*path, key)) for key, inner in reversed(part.items())]
        elif isinstance(part, list | tuple):
            pending += reversed([(inner, (*path, index)) for index, inner in enumerate(part)])
    return None


def whole_value(value: Any) -> Any:
    """A JSON value with all texts and keys made whole. As deep as Python's recursion allows."""
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, dict):
        return {whole_value(key): whole_value(inner) for key, inner in value.items()}
    return [whole_value(inner) for inner in value] if isinstance(value, list | tuple) else value
