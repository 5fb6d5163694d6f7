"""Where secrets stand in a text: spans, and how a text is changed at them."""

from collections.abc import Iterable

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


def lowered(text: str) -> str:
    """Lower case at the same positions: the letters that would become two stay."""
    low = text.lower()
    if len(low) == len(text):
        return low
    return "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in text)
