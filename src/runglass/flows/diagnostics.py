"""Mistakes in data, each at a path of the data, before its line in a text is known."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from runglass.support.safe_text import printable, replace_surrogates

Path = tuple[str | int, ...]

NAME_CHARS = 100
PATH_CHARS = 1000

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)


class Finding(NamedTuple):
    """A mistake at a path of the data.

    `at_key` means the name and not the value. `line` and `column` count from 1 inside the text at `path`.
    `earlier` is the path of the first of two things that clash. A warning does not keep data from being used.
    """

    message: str
    path: Path
    at_key: bool = False
    line: int | None = None
    column: int = 1
    earlier: Path | None = None
    is_warning: bool = False


def path_text(parts: Sequence[str | int]) -> str:
    """A path as people write it: `steps[2].retry.max_attempts` or `["a b"]`; empty for the whole value.

    A long name is cut in it, and so is the middle of a long path.
    """
    text = ""
    for part in parts[:PATH_CHARS]:
        if isinstance(part, int):
            text += f"[{part}]"
        elif len(part) <= NAME_CHARS and _PLAIN_NAME.fullmatch(part):
            text += f".{part}" if text else part
        else:
            name = part if len(part) <= NAME_CHARS else f"{part[:NAME_CHARS]}…"
            text += f"[{printable(msgspec.json.encode(replace_surrogates(name)).decode())}]"
    return text if len(text) <= PATH_CHARS else f"{text[: PATH_CHARS // 2]}…{text[-PATH_CHARS // 2 :]}"


def shown(value: Any) -> str:
    """A JSON value on one short line, for a message."""
    text = repr(value) if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}…"
