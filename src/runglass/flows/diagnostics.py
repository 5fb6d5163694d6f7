"""Mistakes in data, each at a path of the data, before its line in a text is known."""

import re
from typing import Any, NamedTuple

import msgspec

Path = tuple[str | int, ...]

_PLAIN_NAME = re.compile(r"[\w-]+")


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


def path_text(path: Path) -> str:
    """A path as people write it: `steps[2].retry.max_attempts`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_NAME.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{part!r}]"
    return text


def shown(value: Any) -> str:
    """A JSON value on one short line, for a message."""
    text = repr(value) if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}…"
