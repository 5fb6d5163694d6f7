"""Answers that go without their end: what the log of a real server says of them, and what the caller sees."""

import asyncio
import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from runglass.cli.exit_codes import Exit
from runglass.config.settings import Settings
from runglass.runtime.composition import open_store
from runglass.store.keys import make_key
from runglass.store.records import StepRow
from tests.conformance.stores import batch, make_run
from tests.e2e.command import Process, started

LARGE = "01900000-0000-7000-8000-000000000001"
BROKEN = "01900000-0000-7000-8000-000000000002"
STEP = b'{"n":"%b"}' % (b"x" * 100_000)
NO_STALLS = {"RUNGLASS_STALL_LOG_MS": "600000"}
"""The lines of the log are about answers, however busy the machine is."""
STEPS = 300
"""Of 30 MB: what the systems of both sides hold of an answer is less."""


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, str]:
    """A data folder with a run of 30 MB, and one whose last step is no JSON; and a key."""
    folder, made = tmp_path, make_key()

    async def fill() -> None:
        async with open_store(Settings(data=folder)) as store:
            project = await store.ensure_project("acme", "demo")
            await store.add_key(project.id, "read", made.digest, made.hint)
            for run_id, last in ((LARGE, STEP), (BROKEN, b"garbage")):
                run = await make_run(store, run_id)
                rows = [StepRow(n + 1, "s", str(n), 1, "completed", STEP) for n in range(STEPS)]
                rows.append(StepRow(STEPS + 1, "t", "", 1, "completed", last))
                summary = b'{"id":"%b"}' % run_id.encode()
                end = b'{"eventType":"flow_completed"}'
                await store.append(batch(run, 0, end, steps=rows, status="completed", summary=summary))

    asyncio.run(fill())
    return folder, made.key


def ready(server: Process) -> str:
    """Its address, once the lines that a start prints are read."""
    _, url = server.line().split()
    server.line_of_stderr_with("runglass runs list")
    return url


def half_an_answer(url: str, key: str) -> socket.socket:
    """A connection that has read the beginning of the trace, and reads no more."""
    address = urlsplit(url)
    connection = socket.create_connection((str(address.hostname), address.port or 0), timeout=60)
    head = f"GET /api/v1/flow-runs/{LARGE}/trace HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n\r\n"
    connection.sendall(head.encode())
    assert connection.recv(100).startswith(b"HTTP/1.1 200")
    return connection


def rest_of(connection: socket.socket) -> bytes:
    received = b""
    try:
        while part := connection.recv(1 << 20):
            received = received[-10:] + part
    except ConnectionResetError:
        pass
    return received


def test_an_answer_that_is_cut_off_leaves_one_line_and_a_caller_that_leaves_none(
    data: tuple[Path, str],
) -> None:
    folder, key = data
    with started("serve", "--port", "0", "--data", folder, env=NO_STALLS) as server:
        url = ready(server)
        for _ in range(3):
            half_an_answer(url, key).close()
        headers = {"Authorization": f"Bearer {key}", "X-Request-Id": "asked-for-all"}
        with httpx2.Client(base_url=f"{url}/api/v1", headers=headers, timeout=60) as http:
            assert len(http.get(f"/flow-runs/{LARGE}/trace").json()["steps"]) == STEPS + 1
            with pytest.raises(httpx2.RemoteProtocolError):
                http.get(f"/flow-runs/{BROKEN}/trace")
        with half_an_answer(url, key) as it:
            assert server.terminate() == Exit.OK
            unreadable, stopped = server.rest_of_stderr()
            assert not rest_of(it).endswith(b"0\r\n\r\n"), "it would pass for the whole"
    asked = f"request asked-for-all: the answer to GET /api/v1/flow-runs/{BROKEN}/trace was cut off: "
    assert asked in unreadable
    assert "cannot be read" in unreadable
    assert f"the answer to GET /api/v1/flow-runs/{LARGE}/trace was cut off" in stopped
    assert stopped.endswith("the server is being stopped")
