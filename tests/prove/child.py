"""The process that is killed, and the one that it is forked from.

Python and its imports take two seconds to start, a fork a tenth of one: so one process imports everything,
and forks a server for each `Start` that it reads. Nothing in the package knows of crash points. A server
passes one before and after each call that writes, and before each single statement of the writer thread, so
that a kill comes between every two writes, also those that are added later.
"""

import asyncio
import contextlib
import ctypes
import mmap
import os
import signal
import sqlite3
import struct
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn, Self

import msgspec
import pydantic_monty  # noqa: F401  # what the first code step of a run would wait for

from runglass.bus.base import Bus
from runglass.config.settings import Settings
from runglass.engine.models.gateway import ModelGateway, ModelRequest
from runglass.engine.steps.executor import StepExecutor
from runglass.errors import StepFailure
from runglass.runtime.worker import new_event_loop, work
from runglass.server.bootstrap import serve
from runglass.store.sqlite.store import SqliteStore
from runglass.support.clock import SharedClock, SystemClock, iso

WRITER = "runglass-writer-0"
WRITING = ("create_run", "resume_run", "answer_call", "append")
"""Methods of the store that a run goes through; what other writes do is known by their statements."""

AHEAD_S = struct.Struct("d")

_PR_SET_PDEATHSIG = 1


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """A process to fork; it kills itself when it passes `point` for the `nth` time, if that is given.

    At a point of the writer thread it lingers: the other threads may say meanwhile what they should not yet.
    Where it `serves` nothing it is a worker. `clock`, if given, is a file that says by how many seconds its
    time of day is wrong, see `write_clock`. `plant` is a fault of the program, of `PLANTS`, that a proof must
    find.
    """

    settings: Settings
    log: Path
    point: str | None = None
    nth: int = 1
    linger_s: float = 0.0
    serves: bool = True
    clock: Path | None = None
    plant: str = ""

    def line(self) -> bytes:
        # Only what was set: an older program refuses settings that it does not know.
        defaults = Settings()
        told = {
            name: value
            for name, value in msgspec.structs.asdict(self.settings).items()
            if value != getattr(defaults, name)
        }
        start = msgspec.structs.asdict(self) | {"settings": told}
        return msgspec.json.encode(start, enc_hook=str) + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Self:
        return msgspec.json.decode(line, type=cls, dec_hook=lambda kind, value: kind(value))


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of stdout: the process is `warm`; a server was forked, is ready, passes a point it had not
    passed before, kills itself at one, or is gone."""

    kind: str
    pid: int = 0
    at: str = ""
    text: str = ""


def tell(told: Told) -> None:
    """One write: what is shorter than a pipe's buffer is written whole, whoever is killed."""
    os.write(1, msgspec.json.encode(told) + b"\n")


class Points:
    """Counts how often each point is passed, and ends the process at the one that was asked for."""

    def __init__(self, start: Start) -> None:
        self._point = start.point
        self._left = start.nth
        self._linger_s = start.linger_s
        self._seen: set[str] = set()

    def passing(self, point: str) -> None:
        if point not in self._seen:
            self._seen.add(point)
            tell(Told(kind="passed", text=point))
        if point == self._point:
            self._left -= 1
            if self._left == 0:
                tell(Told(kind="crash", text=point))
                if threading.current_thread().name == WRITER:
                    time.sleep(self._linger_s)
                os.kill(os.getpid(), signal.SIGKILL)


def install(points: Points) -> None:
    """Lets this process pass the points, for good: it will not be used for anything else."""
    for name in WRITING:
        method = getattr(SqliteStore, name)
        setattr(SqliteStore, name, _passing(points, name, method))
    Bus.wake = _passing(points, "wake", Bus.wake)  # type: ignore[method-assign]
    connect = sqlite3.connect

    class Watched(sqlite3.Connection):
        """A connection whose statements are points where the writer thread makes them."""

        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            return _stated(points, sql, super().execute, values)

        def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
            return _stated(points, sql, super().executemany, values)

    def watched(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return connect(*arguments, factory=Watched, **options)

    sqlite3.connect = watched  # type: ignore[assignment]


def _passing(points: Points, name: str, method: Callable[..., Awaitable[Any]]) -> Any:
    async def passing(*arguments: Any, **options: Any) -> Any:
        points.passing(f"{name}, before")
        result = await method(*arguments, **options)
        points.passing(f"{name}, after")
        return result

    return passing


def _stated(
    points: Points, sql: str, execute: Callable[..., sqlite3.Cursor], values: tuple[Any, ...]
) -> sqlite3.Cursor:
    statement = named(sql) if threading.current_thread().name == WRITER else None
    if statement is None:
        return execute(sql, *values)
    points.passing(statement)
    cursor = execute(sql, *values)
    if statement in ("BEGIN", "COMMIT"):
        points.passing(f"{statement}, done")
    return cursor


def named(sql: str) -> str | None:
    """What a statement writes, in short: `INSERT event`. None for one that only reads."""
    words = sql.split()
    verb = words[0].upper()
    if verb in ("BEGIN", "COMMIT"):
        return verb
    if verb not in ("INSERT", "UPDATE", "DELETE", "REPLACE"):
        return None
    upper = [word.upper() for word in words]
    place = {"UPDATE": 1, "DELETE": upper.index("FROM") + 1 if "FROM" in upper else 1}
    table = words[upper.index("INTO") + 1] if "INTO" in upper else words[place.get(verb, 1)]
    return f"{verb} {table.strip('(),').lower()}"


def write_clock(file: Path, ahead_s: float) -> None:
    """From now on the time of day of whoever has this clock is so much ahead."""
    with file.open("r+b" if file.exists() else "w+b") as clock:
        # One write: who reads it has the old time or the new one.
        clock.write(AHEAD_S.pack(ahead_s))


def set_clock(file: Path) -> None:
    """Lets the time of day of this process be wrong as the file says, for good."""
    with file.open("rb") as clock:
        ahead = mmap.mmap(clock.fileno(), AHEAD_S.size, prot=mmap.PROT_READ)

    def now(_: SystemClock) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=AHEAD_S.unpack(ahead)[0])

    SystemClock.now = now  # type: ignore[assignment]


PLANTS: dict[str, tuple[type, str, Callable[..., Any]]] = {
    "a wait that another process goes on with begins anew": (StepExecutor, "seconds_since", lambda *_: 0.0),
    "a wait that another process goes on with ends at once": (StepExecutor, "seconds_since", lambda *_: 1e9),
    "a process dates events by its own clock": (SharedClock, "now", lambda _: SystemClock().now()),
}
"""Faults that a program under trial may be given: the method that becomes another one."""


def die_with_parent() -> None:
    """Whoever started this process may be killed itself, and then nobody is left to end it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def run_server(start: Start) -> NoReturn:
    """The forked process: serves until it is killed or told to stop."""
    die_with_parent()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(start.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
    install(Points(start))
    if start.clock is not None:
        set_clock(start.clock)
    if start.plant:
        setattr(*PLANTS[start.plant])
    status = 1
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            if start.serves:
                runner.run(serve(start.settings, ready=_ready))
            else:
                runner.run(work(start.settings, ready=lambda _: _ready("")))
        status = 0
    finally:
        # Not `sys.exit`: what the parent process has open is not this one's to close.
        if status:
            sys.excepthook(*sys.exc_info())
        os._exit(status)


def _ready(url: str) -> None:
    tell(Told(kind="ready", text=url, at=iso(datetime.now(UTC))))


async def _warm_up() -> None:
    """Imports what the first call of a model imports on its way, by a call to where nobody listens."""
    nobody = {"nobody": "http://127.0.0.1:9/v1"}
    asked = ModelRequest(model="nobody:tiny", messages=[{"role": "user", "content": "?"}])
    async with ModelGateway(Settings(providers=nobody, provider_keys={"nobody": "none"})) as models:
        with contextlib.suppress(StepFailure):
            await models.complete(asked, lambda _: None)


def main() -> None:
    """Reads a `Start` from each line of stdin and serves it, one after the other, until stdin ends."""
    die_with_parent()
    asyncio.run(_warm_up())
    assert threading.active_count() == 1, "a process with threads cannot be forked"
    tell(Told(kind="warm"))
    for line in sys.stdin.buffer:
        start = Start.read(line)
        pid = os.fork()
        if pid == 0:
            run_server(start)
        tell(Told(kind="forked", pid=pid))
        _, status = os.waitpid(pid, 0)
        tell(Told(kind="gone", pid=pid, text=str(os.waitstatus_to_exitcode(status))))
    # Python takes a second, on a busy machine several, to take apart all that it has imported.
    os._exit(0)


if __name__ == "__main__":
    main()
