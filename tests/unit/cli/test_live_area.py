"""Painting over and over at the bottom of a terminal: what is on the screen after each frame."""

import io
import re

from rich.console import Console
from rich.text import Text

from runglass.cli.terminal.output import LiveArea


class Screen(io.StringIO):
    """A terminal without a bottom that knows what is sent to it, and nothing else."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.rows = [""]
        self.row = 0
        self.writes = 0

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.writes += bool(text)
        for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
            self._take(part)
        return len(text)

    def _take(self, part: str) -> None:
        if part == "\n":
            self.row += 1
            self.rows += [""] * (self.row + 1 - len(self.rows))
        elif up := re.fullmatch(r"\x1b\[(\d+)A", part):
            self.row -= int(up[1])
            assert self.row >= 0
        elif part == "\x1b[J":
            del self.rows[self.row + 1 :]
            self.rows[self.row] = ""
        elif part in ("\x1b[?2026h", "\x1b[?2026l", "\r") or re.fullmatch(r"\x1b\[[\d;]*m", part):
            pass
        else:
            assert not part.startswith("\x1b"), part
            assert not self.rows[self.row]
            self.rows[self.row] = part

    def narrow(self, width: int) -> None:
        """Makes the terminal narrower; it wraps what is on the screen."""
        before = self.rows[: self.row]
        self.rows = [row[at : at + width] for row in before for at in range(0, max(len(row), 1), width)]
        self.row = len(self.rows)
        self.rows.append("")
        self.width = width


def console_on(screen: Screen) -> Console:
    return Console(file=screen, width=screen.width, height=24, force_terminal=True, highlight=False)


def test_what_is_kept_stays_above_and_the_area_is_painted_over() -> None:
    screen = Screen(80)
    with LiveArea(console_on(screen)) as area:
        area.paint([Text("one"), Text("two")])
        area.keep(Text("first"))
        area.paint([Text("three")])
        assert screen.rows == ["first", "three", ""]
        area.keep(Text("second"))
        area.paint([Text("four"), Text("five"), Text("six")])
        assert screen.rows == ["first", "second", "four", "five", "six", ""]
        area.keep(Text("third"))
    assert screen.rows == ["first", "second", "third", ""]


def test_a_frame_is_one_write() -> None:
    screen = Screen(80)
    with LiveArea(console_on(screen)) as area:
        area.keep(Text("a", "red"))
        area.paint([Text("one", "bold"), Text("two")])
        assert screen.writes == 1


def test_a_terminal_that_becomes_narrower_keeps_no_piece_of_an_old_frame() -> None:
    screen = Screen(80)
    console = console_on(screen)
    with LiveArea(console) as area:
        area.keep(Text("stays"))
        area.paint([Text("x" * 70), Text("y" * 10)])
        screen.narrow(30)
        console.width = 30
        area.paint([Text("z")])
        assert screen.rows == ["stays", "z", ""]


def test_an_interrupt_leaves_no_area_behind() -> None:
    screen = Screen(80)
    try:
        with LiveArea(console_on(screen)) as area:
            area.keep(Text("stays"))
            area.paint([Text("one")])
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert screen.rows == ["stays", ""]


def test_frames_come_ten_times_a_second_or_when_much_waits() -> None:
    area = LiveArea(console_on(Screen(80)))
    assert area.is_due
    area.paint([])
    assert not area.is_due
    for _ in range(200):
        area.keep(Text("line"))
    assert area.is_due
