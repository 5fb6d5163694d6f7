"""The other end of `rendering`: starts that process, talks to it within bounds of time, and replaces it.

Knows nothing of what templates are; it may be used by one thread at a time.
"""

import os
import select
import subprocess
import sys
import time
from typing import IO

import msgspec

from runglass.engine.rendering import READY, Answer, Ask

_START_LIMIT_S = 30.0
_ANSWER_LIMIT_S = 10.0
"""Of wall-clock time, for a process that is stuck; what a template may compute is limited inside."""


class RenderProcess:
    """A process for templates: started when first asked, and again after a template took it down."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = False
        self._decoder = msgspec.json.Decoder(Answer)

    def ask(self, ask: Ask) -> Answer:
        message = msgspec.json.encode(ask)
        process = self._started()
        deadline = time.monotonic() + _ANSWER_LIMIT_S
        try:
            self._write(process, len(message).to_bytes(4) + message, deadline)
            size = int.from_bytes(self._read(process, 4, deadline))
            return self._decoder.decode(self._read(process, size, deadline))
        except (OSError, EOFError):
            self.close()
            # The next template must not wait for Python to start.
            self._start()
            return Answer(fault="the template takes too much memory or time")
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
        if not self._is_ready:
            try:
                self._is_ready = self._read(process, len(READY), time.monotonic() + _START_LIMIT_S) == READY
            except EOFError as error:
                self.close()
                raise RuntimeError(
                    "no process for templates starts; `python -m runglass.engine.rendering` tells why"
                ) from error
        return process

    def _start(self) -> subprocess.Popen[bytes]:
        self._is_ready = False
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runglass.engine.rendering"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=_environment(),
            # An interrupt from the keyboard is for the server, which may still need this to end its runs.
            start_new_session=True,
        )
        if sys.platform != "win32":
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
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def _await(pipe: IO[bytes], event: int, deadline: float) -> None:
    """Returns when the pipe can be used; raises EOFError after the deadline."""
    if sys.platform != "win32":
        ready = select.poll()
        ready.register(pipe, event)
        if not ready.poll(max(0, deadline - time.monotonic()) * 1000):
            raise EOFError


def _environment() -> dict[str, str]:
    # Nothing of the server's environment, where keys of providers are, but what Python needs to start.
    needed = ("SYSTEMROOT", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    kept = {name: os.environ[name] for name in needed if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(sys.path)}
