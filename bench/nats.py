"""A NATS for the bench, from a wheel."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.children import READY_S, STOP_S, BenchError

PROGRAM = Path(sys.executable).parent / "nats-server"


@contextmanager
def nats_server() -> Iterator[str]:
    """The address of a server on a free port, until the block ends. Raises BenchError if none starts."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [str(PROGRAM), "--addr", "127.0.0.1", "--port", port]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until_s = time.monotonic() + READY_S
            while process.poll() is None and time.monotonic() < until_s:
                with suppress(OSError), socket.create_connection(("127.0.0.1", int(port)), timeout=1):
                    break
                time.sleep(0.02)
            else:
                raise BenchError("nats-server did not start")
            yield f"nats://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(STOP_S)
