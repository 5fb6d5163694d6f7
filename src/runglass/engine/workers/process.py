"""A process that works on what callers send and can be killed: started when first needed, then replaced.

Messages go there and back with four bytes ahead that say how long they are. Knows nothing of their meaning.
A process may be used by one thread at a time.
"""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import IO

from runglass.engine.workers.limits import READY

START_LIMIT_S = 30.0


class WorkerDied(Exception):
    """The process ended, or was killed, before it answered.

    `cause` is the reason: `time`, by its own limit or this side's; `memory`; `ended` for itself; or
    `unknown`.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(f"the process ended before it answered: {cause}")
        self.cause = cause


class WorkerNotStarted(RuntimeError):
    """No process can be started, or it ends before it takes a message."""


class WorkerProcess:
    """The process of a module, `python -m MODULE`; `what` says in an error what it is for."""

    def __init__(self, module: str, *, what: str, arguments: tuple[str, ...] = ()) -> None:
        self._module = module
        self._what = what
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self.is_ready = False
        """Whether the process takes messages."""

    @property
    def pid(self) -> int | None:
        """The id of the process; None where there is none."""
        return None if self._process is None else self._process.pid

    def exchange(self, message: bytes, *, limit_s: float, gone: threading.Event | None = None) -> bytes:
        """The answer to a message. Raises WorkerDied, also after `limit_s` of wall-clock time.

        `gone` is set, before a `kill`, by a caller that wants no answer any more: a process that starts
        meanwhile is not asked. A process that has ended by itself since its last answer, to give its memory
        back, is no failure. Raises WorkerNotStarted.
        """
        try:
            return self._exchange(message, limit_s=limit_s, gone=gone)
        except WorkerDied as died:
            if died.cause != "ended":
                raise
        return self._exchange(message, limit_s=limit_s, gone=gone)

    def _exchange(self, message: bytes, *, limit_s: float, gone: threading.Event | None) -> bytes:
        process = self._started()
        if gone is not None and gone.is_set():
            raise WorkerDied("unknown")
        deadline = time.monotonic() + limit_s
        try:
            self._write(process, len(message).to_bytes(4), deadline)
            self._write(process, message, deadline)
            size = int.from_bytes(self._read(process, 4, deadline))
            return self._read(process, size, deadline)
        except (OSError, EOFError) as error:
            is_late = time.monotonic() >= deadline
            self.close()
            cause = "time" if is_late else _cause(process.returncode)
            # The next one must not wait for Python to start.
            with suppress(WorkerNotStarted):
                self._start()
            raise WorkerDied(cause) from error
        except BaseException:
            self.close()
            raise

    def kill(self) -> None:
        """Ends what the process does; from any thread."""
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _started(self) -> subprocess.Popen[bytes]:
        process = self._process
        if process is None or process.poll() is not None:
            self.close()
            process = self._start()
        if not self.is_ready:
            try:
                self.is_ready = self._read(process, len(READY), time.monotonic() + START_LIMIT_S) == READY
            except EOFError as error:
                self.close()
                raise WorkerNotStarted(
                    f"no process for {self._what} starts; `python -m {self._module}` tells why"
                ) from error
        return process

    def _start(self) -> subprocess.Popen[bytes]:
        self.is_ready = False
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", self._module, *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env=environment(),
                # An interrupt from the keyboard is for the server, which may still need this to end its runs.
                start_new_session=True,
            )
        except OSError as error:
            raise WorkerNotStarted(f"no process for {self._what} starts: {error}") from error
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        return self._process

    def _write(self, process: subprocess.Popen[bytes], message: bytes, deadline: float) -> None:
        assert process.stdin is not None
        rest = memoryview(message)
        while rest:
            _await(process.stdin, select.POLLOUT, deadline)
            rest = rest[os.write(process.stdin.fileno(), rest) :]

    def _read(self, process: subprocess.Popen[bytes], size: int, deadline: float) -> bytes:
        assert process.stdout is not None
        parts = []
        while size:
            _await(process.stdout, select.POLLIN, deadline)
            part = os.read(process.stdout.fileno(), size)
            if not part:
                # Its exit code, which says why, is there a moment later.
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=1.0)
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def _cause(returncode: int | None) -> str:
    if returncode in (-signal.SIGPROF, -signal.SIGXCPU):
        return "time"
    if returncode == 0:
        return "ended"
    # A failed allocation aborts native code; the kernel kills what takes the last memory.
    if returncode in (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS):
        return "memory"
    return "unknown"


def _await(pipe: IO[bytes], event: int, deadline: float) -> None:
    """Returns when the pipe can be used; raises EOFError after the deadline."""
    ready = select.poll()
    ready.register(pipe, event)
    if not ready.poll(max(0, deadline - time.monotonic()) * 1000):
        raise EOFError


def environment() -> dict[str, str]:
    """The environment of a process: only the variables that Python needs to start.

    The server's own has the keys of providers in it.
    """
    needed = ("PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    inherited = {name: os.environ[name] for name in needed if name in os.environ}
    return {**inherited, "PYTHONPATH": os.pathsep.join(sys.path)}
