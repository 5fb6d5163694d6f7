"""Output: results go to stdout; notes, warnings and errors to stderr; what changes, to an area painted over.

Text from flows and runs is data, never markup: it is written without Rich's interpretation, and without the
characters with which it could take over a terminal, turn the order of what is read, or hide.
"""

import logging
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from runglass.support.logs import OneASecond

_UNSEEN = (
    "\x7f-\x9f"
    # Marks that turn the direction of text, separators of lines, and characters without a shape. The joiners
    # U+200C and U+200D stay: Persian and emoji are written with them.
    "\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff"
    # Halves of characters, as in file names that are not UTF-8.
    "\ud800-\udfff"
)
_CONTROL = re.compile(f"[\x00-\x08\x0b-\x1f{_UNSEEN}]")
_RUN_IN_LOG = re.compile(r"\bruns?[ /]'?([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})")
_RAW_IN_JSON = re.compile(f"[{_UNSEEN}]")


class PipeClosed(Exception):
    """The reader of stdout has closed the pipe."""


class _Output(Console):
    def on_broken_pipe(self) -> None:
        raise PipeClosed


def stdout() -> Console:
    """A console for results."""
    return _Output(highlight=False, markup=False, emoji=False)


def stderr() -> Console:
    """A console for notes, progress and errors."""
    return _Output(stderr=True, highlight=False, markup=False, emoji=False)


def is_watched(console: Console) -> bool:
    """Whether the console writes to a terminal. FORCE_COLOR does not make a terminal of a file."""
    return console.file.isatty()


def width_of(console: Console) -> int | None:
    """The columns that a line should fit in; None for a file or a pipe, whose lines must not be cut."""
    return console.width if is_watched(console) or os.environ.get("COLUMNS") else None


def write_line(console: Console, line: str | Text = "", *, style: str = "") -> None:
    """Writes one line, or several; the terminal wraps them. Raises PipeClosed."""
    if _CONTROL.search(str(line)):
        line = clean(str(line))
    console.print(line, style=style or None, soft_wrap=True)


def write_lines(lines: Iterable[str | Text]) -> None:
    """Writes lines to stdout. Raises PipeClosed."""
    console = stdout()
    for line in lines:
        write_line(console, line)


def heading(title: str) -> None:
    """Writes a title to stdout, below an empty line."""
    write_line(stdout())
    write_line(stdout(), title, style="bold underline")


def write_json(value: Any, *, indent: int = 0) -> None:
    """`value` as JSON on stdout: on one line, or with `indent` spread over several. Raises PipeClosed."""
    data = msgspec.json.encode(value)
    if indent:
        data = msgspec.json.format(data, indent=indent)
    if sys.stdout.isatty():
        # JSON escapes keep the value. A file or a pipe, which they cannot take over, gets the characters.
        data = _RAW_IN_JSON.sub(_escaped, data.decode()).encode()
    # Bytes, because JSON is UTF-8 whatever encoding the terminal has.
    write_bytes(data + b"\n")


def write_bytes(data: bytes) -> None:
    """Writes bytes to stdout as they are. Raises PipeClosed."""
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError as error:
        raise PipeClosed from error


def note(text: str) -> None:
    """Writes a remark beside the result to stderr."""
    write_line(stderr(), text)


def warn(text: str) -> None:
    """Writes a warning to stderr: of a likely mistake that does not end the command."""
    write_line(stderr(), Text.assemble(("warning: ", "bold yellow"), clean(text)))


def complain(text: str) -> None:
    """Writes an error to stderr, its first line marked as one."""
    write_line(stderr(), Text.assemble(("error: ", "bold red"), clean(text)))


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        # A further line of a message is set off, so that no text in it can pass for a message of its own.
        return clean(super().format(record)).replace("\n", "\n    ")


class JsonLog(logging.Formatter):
    """Makes `{"at", "level", "logger", "message"}` of a record, with ids and the failure where there are any.

    The line is ASCII, so nothing in a message can take over a terminal or begin a line of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        # Imported here: most commands have no such log.
        import json

        from runglass.limits.pace import current_project
        from runglass.support.logs import request_id, run_id

        self._encode = json.dumps
        self._ids: dict[str, Any] = {
            "requestId": request_id,
            "runId": run_id,
            "projectId": current_project,
        }

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: variable.get() for name, variable in self._ids.items()},
            "failure": self.formatException(record.exc_info) if record.exc_info else "",
        }
        if not fields["runId"] and (run := _RUN_IN_LOG.search(fields["message"])) is not None:
            fields["runId"] = run[1]
        return self._encode({name: value for name, value in fields.items() if value})


def log_to_stderr(level: str, form: Literal["text", "json"] = "text") -> None:
    """Sends the log of Runglass from `level` on, and warnings of the libraries under it, to stderr.

    From then on stderr is this process's alone.
    """
    # The sandbox's library hands ours on to its processes, whose last words may be long and quote a step's
    # content. Where they get none, the Rust runtime opens the null device in its place.
    with suppress(AttributeError, OSError):
        os.set_inheritable(sys.stderr.fileno(), False)
    handler = logging.StreamHandler()
    handler.addFilter(OneASecond())
    text = _Plain("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonLog() if form == "json" else text)
    logging.basicConfig(handlers=[handler])
    logging.getLogger("runglass").setLevel(level.upper())


def announcer(form: Literal["text", "json"]) -> Callable[[str], None]:
    """What tells on stderr how a process is used: a remark, or a line of the log where that is JSON."""
    return note if form == "text" else logging.getLogger("runglass").info


def _escaped(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def clean(text: str) -> str:
    """Text without control characters, apart from line breaks and tabs, and without invisible ones."""
    return _CONTROL.sub("\ufffd", text.replace("\r\n", "\n"))


def one_line(text: str, *, limit: int = 200) -> str:
    """Text on a single line of at most `limit` characters."""
    line = " ".join(clean(text).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


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
    """Lines at the bottom of a terminal that are painted over and over, below lines that stay.

    Used as a context, at whose end the area is gone and the cursor is at the begin of a line. Each frame is
    one write, which a terminal that can shows at once, so that nothing flickers. The cursor stays as it is,
    so that a command which is killed leaves the terminal in order.
    """

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


@contextmanager
def repainting(paint: Callable[[], None]) -> Iterator[threading.Lock]:
    """Calls `paint` for each frame until the block ends, in a thread that holds this lock meanwhile."""
    lock, ended = threading.Lock(), threading.Event()

    def repaint() -> None:
        # A terminal that is gone is for the thread that writes the results.
        with suppress(PipeClosed):
            while not ended.wait(FRAME_S):
                with lock:
                    paint()

    thread = threading.Thread(target=repaint, daemon=True)
    thread.start()
    try:
        yield lock
    finally:
        ended.set()
        thread.join()
