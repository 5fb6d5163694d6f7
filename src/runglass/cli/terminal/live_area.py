"""Lines at the bottom of a terminal that are painted over and over, below lines that stay.

Each frame is one write, which a terminal that can shows at once, so that nothing flickers. The cursor stays
as it is, so that a command which is killed leaves the terminal in order.
"""

import math
import time
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from runglass.cli.terminal.output import PipeClosed

FRAME_S = 0.1
MOST_HELD = 200
"""Lines that wait for the next frame at most."""

BEGIN_FRAME, END_FRAME = "\x1b[?2026h", "\x1b[?2026l"
"""Around a frame. A terminal that does not know them takes no notice."""
CLEAR_BELOW = "\x1b[J"


def can_repaint(console: Console) -> bool:
    """Whether the console writes to a terminal that can move its cursor."""
    return console.file.isatty() and not console.is_dumb_terminal


class LiveArea:
    """Used as a context, at whose end the area is gone and the cursor is at the begin of a line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._painted: list[int] = []
        self._held: list[str] = []
        self._next_s = 0.0

    def __enter__(self) -> "LiveArea":
        return self

    def __exit__(self, *exc: object) -> None:
        self.paint(())

    @property
    def is_due(self) -> bool:
        """Whether it is time for another frame."""
        return time.monotonic() >= self._next_s or len(self._held) >= MOST_HELD

    @property
    def size(self) -> tuple[int, int]:
        """The cells of a line, and the lines that there is room for."""
        # With its last cell full, a line would count as two in some terminals.
        width, height = self._console.size
        return max(width - 1, 1), max(height - 2, 1)

    def keep(self, line: Text) -> None:
        """Puts a line above the area with the next frame; it stays on the screen."""
        self._held.append(self._encoded(line))

    def paint(self, lines: Sequence[Text]) -> None:
        """Writes the lines that wait, and these in place of the last frame's."""
        # A terminal that has become narrower has wrapped the lines of the last frame. Those few that do not
        # wrap lose some of the lines above; without this, all others would keep pieces of old frames.
        width = max(self._console.width, 1)
        rows = sum(max(1, math.ceil(cells / width)) for cells in self._painted)
        top = f"\r\x1b[{rows}A" if rows else "\r"
        shown = [*self._held, *map(self._encoded, lines)]
        frame = "".join(f"{line}\n" for line in shown)
        self._held.clear()
        self._painted = [cell_len(line.plain) for line in lines]
        self._next_s = time.monotonic() + FRAME_S
        try:
            self._console.file.write(f"{BEGIN_FRAME}{top}{CLEAR_BELOW}{frame}{END_FRAME}")
            self._console.file.flush()
        except BrokenPipeError as error:
            raise PipeClosed from error

    def _encoded(self, line: Text) -> str:
        with self._console.capture() as captured:
            self._console.print(line, soft_wrap=True, end="")
        return captured.get()
