"""`serve` with few file descriptors, and more connections than that."""

import contextlib
import json
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from tests.e2e.command import START, WAIT_S, environment

FEW = 'ulimit -Sn 100 && ulimit -Hn 256 && exec "$@"'


@contextmanager
def served_with_few(data: Path) -> Iterator[str]:
    arguments = ["serve", "--port", "0", "--data", str(data), "--synchronous", "NORMAL"]
    with subprocess.Popen(
        ["/bin/sh", "-c", FEW, "sh", *START, *arguments],
        env=environment(PYTHONUNBUFFERED="1", RUNGLASS_LEASE_S="3", RUNGLASS_HEAD_TIME_LIMIT_S="600"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[1]
        finally:
            process.terminate()
            process.wait(WAIT_S)


def health(url: str) -> object:
    with urlopen(f"{url}/health", timeout=WAIT_S) as answer:
        return json.load(answer)["status"]


def test_half_open_connections_take_no_descriptor_that_the_server_needs(tmp_path: Path) -> None:
    with served_with_few(tmp_path / "data") as url, contextlib.ExitStack() as stack:
        host, port = url.removeprefix("http://").split(":")

        def open_half() -> socket.socket:
            connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=WAIT_S))
            connection.sendall(b"GET /health HTTP/1.1\r\nX:")
            return connection

        halves = [open_half() for _ in range(140)]
        assert health(url) == "ok"
        # More than the limit that the process began with: it was raised to what the system allows.
        assert not select.select(halves, [], [], 0)[0]
        began_s = time.monotonic()
        while len(halves) <= 256 or time.monotonic() - began_s < 4:
            halves.append(open_half())
            # So it would not be if its lease had not been renewed.
            if len(halves) % 20 == 0:
                assert health(url) == "ok"
        assert select.select(halves[:1], [], [], WAIT_S)[0]
