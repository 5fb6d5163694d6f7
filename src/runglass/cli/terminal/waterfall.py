"""Bars of characters on the time axis of a run: when something began, and how long it took.

A bar begins and ends at half a cell. What failed, waits or goes on differs by its characters, not by colour
alone.
"""

from typing import NamedTuple

from rich.text import Text

from runglass.cli.terminal import formatting
from runglass.outlines.outline import NONE

THICK, THIN, DASHED, DOTTED = ("━", "╸", "╺"), ("─", "╴", "╶"), ("┄", "┄", "┄"), ("·", "·", "·")
"""A whole cell, its left half, its right half: of steps, of what has steps inside, of waits and of gaps."""

STYLES: dict[str, str] = {
    "failed": "red",
    "retried": "yellow",
    "cancelled": "dim",
    "running": "cyan",
    "waiting": "yellow",
}


class Bar(NamedTuple):
    """A piece of time, in milliseconds since the start of the run; an `end` of -1 is not known yet."""

    start: int
    end: int
    status: str
    characters: tuple[str, str, str] = THICK


class TimeAxis(NamedTuple):
    """The time from `begin_ms` to `end_ms` after the start of a run, drawn so many cells wide."""

    begin_ms: int
    end_ms: int
    width: int

    def header(self) -> str:
        """The axis itself: its begin and its end, and where there is room its middle."""
        begin = formatting.duration(self.begin_ms) if self.begin_ms else "0"
        end = formatting.duration(self.end_ms)
        middle = formatting.duration((self.begin_ms + self.end_ms) // 2)
        space = self.width - len(begin) - len(end)
        if space < 1:
            return " " * self.width
        line = [*begin, *" " * space, *end]
        at = self.width // 2
        if self.end_ms - self.begin_ms >= 10 and space >= 5 * len(middle):
            line[at : at + len(middle)] = middle
        return "".join(line)

    def drawn(self, *bars: Bar) -> Text:
        """The bars on one line of cells; where two meet, the later one is seen."""
        cells: list[tuple[str, str]] = [(" ", "")] * self.width
        for bar in bars:
            if bar.start != NONE:
                self._draw(bar, cells)
        line = Text()
        for character, style in cells:
            line.append(character, style)
        return line

    def _draw(self, bar: Bar, cells: list[tuple[str, str]]) -> None:
        whole, left, right = bar.characters
        style = STYLES.get(bar.status, "")
        first = min(self._halves(bar.start), 2 * self.width - 1)
        last = 2 * self.width if bar.end == NONE else self._halves(bar.end, round_up=True)
        last = max(first + 1, min(last, 2 * self.width))
        for cell in range(first // 2, (last + 1) // 2):
            is_left, is_right = first <= 2 * cell < last, first <= 2 * cell + 1 < last
            cells[cell] = (whole if is_left and is_right else left if is_left else right, style)
        if bar.end == NONE:
            cells[(last - 1) // 2] = ("▸", style)

    def _halves(self, at_ms: int, *, round_up: bool = False) -> int:
        """Half cells from the begin to a moment."""
        halves, rest = divmod(max(at_ms - self.begin_ms, 0) * 2 * self.width, self.end_ms - self.begin_ms)
        return halves + (round_up and rest > 0)
