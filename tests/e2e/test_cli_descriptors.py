"""`serve` with few file descriptors, and more connections than that."""

import contextlib
import select
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2

from tests.e2e.command import START, WAIT_S, environment
from tests.waiting import eventually

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


def is_well(url: str) -> bool:
    return bool(httpx2.get(f"{url}/health", timeout=WAIT_S).json()["status"] == "ok")


def lease_of(data: Path) -> str:
    with closing(sqlite3.connect(data / "runglass.db", timeout=WAIT_S)) as database:
        ((expires_at,),) = database.execute("SELECT expires_at FROM lease")
        return str(expires_at)


def test_half_open_connections_take_no_descriptor_that_the_server_needs(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with served_with_few(data) as url, contextlib.ExitStack() as stack:
        host, port = url.removeprefix("http://").split(":")

        def open_half() -> socket.socket:
            connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=WAIT_S))
            connection.sendall(b"GET /health HTTP/1.1\r\nX:")
            return connection

        halves = [open_half() for _ in range(140)]
        eventually(lambda: is_well(url))
        # More than the limit that the process began with: it was raised to what the system allows.
        assert not select.select(halves, [], [], 0)[0]
        halves += [open_half() for _ in range(120)]
        before = lease_of(data)
        while lease_of(data) == before:
            halves.append(open_half())
            eventually(lambda: is_well(url))
        assert select.select(halves[:1], [], [], WAIT_S)[0]
