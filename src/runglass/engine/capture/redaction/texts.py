"""The texts in a JSON value."""

from collections.abc import Callable
from typing import Any


def longest_text(value: Any) -> int:
    """Characters of the longest text in a JSON value."""
    longest = 0
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, str):
            longest = max(longest, len(part))
        elif isinstance(part, dict):
            pending += part.values()
        elif isinstance(part, list):
            pending += part
    return longest


def with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of a JSON value with each text changed; keys stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: with_texts(inner, change) for key, inner in value.items()}
    return [with_texts(inner, change) for inner in value] if isinstance(value, list) else value
