"""A real NATS for tests, from a wheel."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.postgres_server import slow_tests_alone
from tests.prove.killing.server import free_port

PROGRAM = Path(sys.executable).parent / "nats-server"


class NatsServer:
    """A server on a port of 127.0.0.1, which it keeps through `kill` and `start`."""

    def __init__(self, *arguments: str) -> None:
        self.port = free_port()
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns once it accepts."""
        slow_tests_alone("NATS")
        command = [str(PROGRAM), "--addr", "127.0.0.1", "--port", str(self.port), *self._arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            assert self._process.poll() is None, command
            assert time.monotonic() < until
            time.sleep(0.01)

    def kill(self) -> None:
        """Ends it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def nats_server(*arguments: str) -> Iterator[NatsServer]:
    """A server with these arguments, until the block ends."""
    server = NatsServer(*arguments)
    server.start()
    try:
        yield server
    finally:
        server.kill()
