"""A real NATS for tests, from a wheel."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port
from tests.postgres_server import slow_tests_alone

PROGRAM = Path(sys.executable).parent / "nats-server"


class NatsServer:
    """A server on a port of 127.0.0.1, which it keeps through `kill` and `start`."""

    def __init__(self, *arguments: str) -> None:
        slow_tests_alone("NATS")
        self.port = free_port()
        self._arguments = arguments
        self.start()

    @property
    def address(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns once it accepts."""
        command = [str(PROGRAM), "--addr", "127.0.0.1", "--port", str(self.port), *self._arguments]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE)
        # The pipe holds all that a server says in a test.
        assert any(b"Server is ready" in line for line in self._process.stderr or ()), command

    def kill(self) -> None:
        """Ends it as a crash does."""
        with self._process:
            self._process.kill()


@contextmanager
def nats_server(*arguments: str) -> Iterator[NatsServer]:
    """A server with these arguments, until the block ends."""
    server = NatsServer(*arguments)
    try:
        yield server
    finally:
        server.kill()
