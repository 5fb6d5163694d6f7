"""Processes beside the bench: servers that say where they listen, and workers that answer line by line.

Both end with the block that started them. What they do is not known here.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 600.0
READY_S = 60.0
STOP_S = 20.0


class BenchError(Exception):
    """A figure could not be measured; the message says what broke."""


class Child:
    """A worker: one line of JSON in, one out."""

    def __init__(self, process: "subprocess.Popen[bytes]", name: str, errors: IO[bytes]) -> None:
        self.pid = process.pid
        self._process = process
        self._name = name
        self._errors = errors

    def ask(self, **message: Any) -> dict[str, Any]:
        """What the worker answers. Raises BenchError if it ends, or takes more than ten minutes."""
        self.tell(**message)
        return self.heard()

    def tell(self, **message: Any) -> None:
        """Sets the worker to work; `heard` waits for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def heard(self) -> dict[str, Any]:
        """The worker's next answer. Raises as `ask` does."""
        reply: dict[str, Any] = json.loads(_line(self._process, self._name, self._errors, PATIENCE_S))
        return reply


class Server:
    """A server in a process of its own. `address` is `http://HOST:PORT`."""

    def __init__(self, pid: int, address: str) -> None:
        self.pid = pid
        self.address = address


@contextmanager
def child(module: str, *arguments: str | Path | int, python: str | Path = sys.executable) -> Iterator[Child]:
    """Starts `python -m module` as a worker, until the block ends."""
    with _started([python, "-m", module, *arguments], stdin=subprocess.PIPE) as (process, errors):
        yield Child(process, module, errors)


@contextmanager
def server(*command: str | Path | int, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Starts `python -m` with this command, which prints `ready URL` once it accepts.

    `settings` are variables of its environment.
    """
    whole = [sys.executable, "-m", *command]
    with _started(whole, stdin=subprocess.DEVNULL, settings=settings) as (process, errors):
        line = _line(process, str(command[0]), errors, READY_S)
        yield Server(process.pid, line.decode().removeprefix("ready ").strip())


@contextmanager
def _started(
    command: Sequence[str | Path | int], *, stdin: int, settings: Mapping[str, str] | None = None
) -> "Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]":
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT,
            env=environment() | dict(settings or {}),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,
        ) as process,
    ):
        try:
            yield process, errors
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def environment() -> dict[str, str]:
    """This process's environment, with the Runglass of this tree and without settings of its user."""
    # Without bytecode every process would compile its modules anew, which no installed package does.
    dropped = ("RUNGLASS_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return kept | {"PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}


def _line(process: "subprocess.Popen[bytes]", name: str, errors: IO[bytes], seconds: float) -> bytes:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    line = process.stdout.readline() if ready else b""
    if not line.endswith(b"\n"):
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
        what = f"ended with {process.wait(STOP_S)}" if ready else f"did not answer within {seconds:.0f} s"
        raise BenchError(f"{name} {what}: {said[-1]}")
    return line
