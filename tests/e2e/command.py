"""The command as a process of its own, with bounds on every wait."""

import asyncio
import fcntl
import json
import os
import pty
import queue
import re
import resource
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2

import runglass as runglass_package
from runglass.config.settings import Settings
from runglass.runtime.composition import open_store
from tests.contract.wire import http_at
from tests.prove.furnish import furnish

MAIN = "import sys; from runglass.cli import main; sys.exit(main())"
START = [sys.executable, "-c", MAIN]
WAIT_S = 60.0
END = "\0"
"""In place of a line, where there are no more."""


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without what would change a command's behaviour, and with `changes`."""
    unwanted = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "PYTHONUNBUFFERED")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in unwanted and not name.startswith(("RUNGLASS_", "TTY_"))
    }
    # The same Runglass as this process has, from whatever folder the command is started.
    return kept | {"PYTHONPATH": str(Path(runglass_package.__file__).parents[1])} | changes


def runglass(
    *arguments: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    inside: Sequence[str] = (),
    program: str = MAIN,
) -> subprocess.CompletedProcess[str]:
    """Runs one command to its end; `inside` is a command that runs another one."""
    done = subprocess.run(
        [*inside, sys.executable, "-c", program, *map(str, arguments)],
        env=environment(**(env or {})),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def said_by(program: Path, *arguments: str, env: Mapping[str, str]) -> str:
    """What a program of Python has printed, which ends well and says nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", program, *arguments],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


class Process:
    """A command that goes on; what it prints is read line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.pid = process.pid
        self._stdout = _lines_of(process.stdout)
        self._stderr = _lines_of(process.stderr)
        self.send = process.send_signal
        """Sends a signal and waits for nothing."""
        self.wait = partial(process.wait, WAIT_S)
        """Waits for the end; the exit code."""

    def line(self) -> str:
        """The next line of stdout."""
        return self._stdout.get(timeout=WAIT_S)

    def line_of_stderr_with(self, *parts: str) -> str:
        """The next line of stderr that holds all parts; those before it are dropped."""
        while True:
            line = self._stderr.get(timeout=WAIT_S)
            if all(part in line for part in parts):
                return line

    def rest_of_stderr(self) -> list[str]:
        """The lines of stderr that were not read, once the command has ended."""
        lines = []
        while (line := self._stderr.get(timeout=WAIT_S)) != END:
            lines.append(line)
        return lines

    def interrupt(self) -> int:
        """Presses Ctrl-C; returns the exit code."""
        self.send(signal.SIGINT)
        return self.wait()

    def terminate(self) -> int:
        """Asks it to stop (SIGTERM); returns the exit code."""
        self.send(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """Ends it at once, whatever it does (SIGKILL)."""
        self.send(signal.SIGKILL)
        self.wait()


def hears_ctrl_c() -> None:
    # A shell starts its background jobs with the signal ignored, and the tests may be such a job.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def in_shell(before: str, *, after: str = "") -> tuple[str, ...]:
    """A shell that runs a command in its place, with what is written before and behind it."""
    return "/bin/sh", "-c", f'{before} exec "$@" {after}', "sh"


@contextmanager
def started(
    *arguments: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    inside: Sequence[str] = (),
) -> Iterator[Process]:
    """A command that goes on until the block ends."""
    process = subprocess.Popen(
        [*inside, *START, *map(str, arguments)],
        env=environment(PYTHONUNBUFFERED="1", **(env or {})),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hears_ctrl_c,
    )
    with process:
        try:
            yield Process(process)
        finally:
            process.kill()


@contextmanager
def failing_disk(process: int, *, most_bytes: int = 0) -> Iterator[Callable[[], object]]:
    """No file gets larger in the process, 0 for this one: SQLite reports a disk I/O error.

    Until the block ends, or what it gives is called.
    """
    before = resource.prlimit(process, resource.RLIMIT_FSIZE)
    make_room = partial(resource.prlimit, process, resource.RLIMIT_FSIZE, before)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield make_room
    finally:
        make_room()


def fill(data: Path, *flows: dict[str, Any]) -> str:
    """Makes a data folder with these flows of project `acme/shop` in production; returns a key of it."""

    async def put() -> str:
        async with open_store(Settings(data=data)) as store:
            return await furnish(store, "acme/shop", map(json.dumps, flows))

    return asyncio.run(put())


@contextmanager
def served(
    data: Path, key: str, *, env: Mapping[str, str] | None = None, inside: Sequence[str] = ()
) -> Iterator[tuple[Process, httpx2.Client]]:
    """A server of the data folder, and somebody with the key who asks it, until the block ends."""
    with (
        started("serve", "--port", "0", "--data", data, env=env, inside=inside) as server,
        http_at(server.line().split()[1], key) as http,
    ):
        yield server, http


class Watched:
    """A command whose stderr is a terminal, and whose stdout is a pipe or that terminal."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int) -> None:
        self._process = process
        self._terminal = terminal
        self._seen = ""
        self.wait = partial(process.wait, WAIT_S)
        """Waits for the end; the exit code."""

    def terminal_until(self, text: str, *, then: str = "") -> str:
        """What the terminal shows up to `text`; with `then`, what matches that pattern right after it."""
        pattern = re.compile(re.escape(text) + f"({then})")
        while (match := pattern.search(self._seen)) is None:
            if not select.select([self._terminal], [], [], WAIT_S)[0]:
                raise TimeoutError(f"{text!r} did not come: {self._seen!r}")
            self._seen += os.read(self._terminal, 65536).decode()
        return match[1] if then else self._seen[: match.end()]

    def interrupt(self) -> int:
        """Presses Ctrl-C; returns the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self.wait()

    def stdout(self) -> str:
        """All of stdout, once the command has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.read().decode()


@contextmanager
def watched(
    *arguments: str | Path, env: Mapping[str, str] | None = None, stdout: int = subprocess.PIPE
) -> Iterator[Watched]:
    """A command that believes to be watched, until the block ends; with STDOUT its stdout is watched, too."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [*START, *map(str, arguments)],
        env=environment(TERM="xterm", **(env or {})),
        stdin=subprocess.DEVNULL,
        stdout=theirs if stdout == subprocess.STDOUT else stdout,
        stderr=theirs,
        preexec_fn=hears_ctrl_c,
    )
    os.close(theirs)
    with process:
        try:
            yield Watched(process, ours)
        finally:
            process.kill()
            os.close(ours)


def _lines_of(stream: object) -> "queue.Queue[str]":
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in stream:  # type: ignore[attr-defined]
            lines.put(line.rstrip("\n"))
        lines.put(END)

    threading.Thread(target=read, daemon=True).start()
    return lines
