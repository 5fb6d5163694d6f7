"""The rules of `rules.toml`, read once."""

import re
import tomllib
from pathlib import Path
from typing import Any

RULES: dict[str, Any] = tomllib.loads(Path(__file__).with_name("rules.toml").read_text("utf-8"))
WORDS: dict[str, list[str]] = RULES["words"]


def _pattern(text: str) -> str:
    """The pattern with its lines joined and its parts put in."""
    joined = "".join(map(str.strip, text.split("\n"))) if "\n" in text else text
    return re.sub(r"\(\?&(\w+)\)", lambda name: _part(name[1]), joined)


def _part(name: str) -> str:
    return "|".join(WORDS[name]) if name in WORDS else _pattern(RULES["parts"][name])


def _compiled(table: str, before: str = "") -> dict[str, re.Pattern[str]]:
    return {name: re.compile(before + _pattern(text)) for name, text in RULES[table].items()}


PATTERNS = _compiled("patterns")
COMMANDS = _compiled("commands", before=r"(?<!\S)")
COMMANDS |= {name: COMMANDS[other] for name, other in RULES["alike"].items()}
WEAK = _compiled("weak")
IN_BYTES = {name: re.compile(_pattern(text).encode()) for name, text in RULES["bytes"].items()}
