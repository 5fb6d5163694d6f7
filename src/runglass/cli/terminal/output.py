"""Output: results go to stdout; notes, warnings and errors to stderr.

Text from flows and runs is data, never markup: it is written without Rich's interpretation, and without the
characters with which it could take over a terminal, turn the order of what is read, or hide.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from rich.console import Console
from rich.text import Text

from runglass.support import logs

_UNSEEN = (
    "\x7f-\x9f"
    # Marks that turn the direction of text, separators of lines, and characters without a shape. The joiners
    # U+200C and U+200D stay: Persian and emoji are written with them.
    "\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff"
    # Halves of characters, as in file names that are not UTF-8.
    "\ud800-\udfff"
)
_CONTROL = re.compile(f"[\x00-\x08\x0b-\x1f{_UNSEEN}]")
_RUN_IN_LOG = re.compile(
    r"\b(?:runs?|jobs)[ /]'?([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})"
)
_RAW_IN_JSON = re.compile(f"[{_UNSEEN}]")


class PipeClosed(Exception):
    """The reader of stdout has closed the pipe."""


class _Output(Console):
    def on_broken_pipe(self) -> None:
        raise PipeClosed

    def show_cursor(self, show: bool = True) -> bool:
        """Leaves it as it is, so that a command which is killed leaves the terminal in order."""
        return False


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
        from runglass.limits.pace import current_project

        self._current_project = current_project

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        message = record.getMessage()
        fields = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
            "requestId": logs.request_id.get(),
            "runId": logs.run_id.get() or (run[1] if (run := _RUN_IN_LOG.search(message)) else ""),
            # Lines of a task that works for several projects bring theirs along.
            "project": logs.project_names.get(
                getattr(record, "project_id", 0) or self._current_project.get(), ""
            ),
            "failure": self.formatException(record.exc_info) if record.exc_info else "",
        }
        return json.dumps({name: value for name, value in fields.items() if value})


def log_to_stderr(level: str, form: Literal["text", "json"] = "text") -> None:
    """Sends the log of Runglass from `level` on, and warnings of the libraries under it, to stderr.

    From then on stderr is this process's alone.
    """
    # The sandbox's library hands ours on to its processes, whose last words may be long and quote a step's
    # content. Where they get none, the Rust runtime opens the null device in its place.
    with suppress(AttributeError, OSError):
        os.set_inheritable(sys.stderr.fileno(), False)
    handler = logging.StreamHandler()
    handler.addFilter(logs.OneASecond())
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


def can_repaint(console: Console) -> bool:
    """Whether the console writes to a terminal that can move its cursor."""
    return console.file.isatty() and not console.is_dumb_terminal
