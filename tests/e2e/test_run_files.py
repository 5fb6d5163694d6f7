"""Runs as files, by the client and the command: exported and imported whole, or not at all."""

import signal
import socket
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from runglass import AsyncClient
from runglass.cli import main
from runglass.cli.exit_codes import Exit
from runglass.testing import running_server
from tests.contract.test_tool_calls import paused
from tests.contract.wire import WORDS, execute
from tests.e2e.command import fill, started
from tests.e2e.conftest import Printed
from tests.http_server import Reply, answering
from tests.servers import server_with
from tests.waiting import eventually

ASK = "slug: ask\nsteps: [{id: ask, type: llm, model: echo, prompt: hi}]"

server = server_with(WORDS, ASK, capture="full")


@pytest.fixture(scope="module")
def run_id(http: httpx2.Client) -> str:
    # Larger than the pieces in which a file is read.
    return execute(http, "words", message="a " + "b" * 70_000)


pytestmark = pytest.mark.usefixtures("connected")


async def test_the_client_on_asyncio_brings_a_run_to_another_server(
    http: httpx2.Client, run_id: str, tmp_path: Path
) -> None:
    sent = http.get(f"/flow-runs/{run_id}/export").content
    async with AsyncClient() as client:
        run = client.run(run_id)
        assert b"".join([part async for part in run.export()]) == sent
        trace, listed = await run.trace(), (await client.runs(query="flow:words")).runs
    file = tmp_path / "run.json"
    file.write_bytes(sent)
    with running_server() as other, file.open("rb") as opened:
        async with AsyncClient(other.key, base_url=other.base_url) as client:
            assert [await client.import_run(opened)] == listed
            assert await client.run(run_id).trace() == trace


def test_the_command_writes_a_new_file_that_only_its_owner_reads_and_leaves_one_that_exists(
    http: httpx2.Client, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: Printed
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["runs", "export", run_id[-8:], "--format", "jsonl"]) == Exit.OK
    (file,) = tmp_path.iterdir()
    assert file.name == f"run-{run_id}.jsonl"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_bytes() == http.get(f"/flow-runs/{run_id}/export?format=jsonl").content
    file.write_text("mine")
    err = printed("runs", "export", run_id, "-o", str(file), code=Exit.USAGE).err
    assert "cannot be written as a new file" in err
    assert file.read_text() == "mine"


def test_a_command_that_is_stopped_leaves_no_part_of_a_file(run_id: str, tmp_path: Path) -> None:
    asked, stopped = threading.Event(), threading.Event()

    def answer(_: object) -> Reply:
        asked.set()
        stopped.wait()
        return Reply(200)

    with answering(answer) as address:
        there = ["--base-url", f"{address}/api/v1", "--api-key", "nk_x"]
        with started("runs", "export", run_id, "-o", tmp_path / "file", *there) as export:
            asked.wait()
            assert [file.name for file in tmp_path.iterdir()] == ["file"]
            export.send(signal.SIGTERM)
            assert export.wait() == Exit.TERMINATED
        stopped.set()
    assert [*tmp_path.iterdir()] == []


def test_the_command_says_that_no_span_of_a_run_has_ended_yet(
    http: httpx2.Client, tmp_path: Path, printed: Printed
) -> None:
    run = paused(http, "/seq/acme/demo/ask/execute")["executionId"]
    file = tmp_path / "spans"
    for output in (file, "-"):
        err = printed("runs", "export", run, "--format", "otlp", "-o", output).err
        assert f"run {run} has no step yet that has ended: there is no span" in err, output
    assert "spanId" not in file.read_text()
    printed("runs", "cancel", run)
    assert "no span" not in printed("runs", "export", run, "--format", "otlp", "-o", "-").err


def test_the_command_brings_a_run_to_another_server(run_id: str, tmp_path: Path, printed: Printed) -> None:
    file = str(tmp_path / "file")
    printed("runs", "export", run_id, "-o", file)
    assert "runglass runs delete" in printed("runs", "import", file, code=Exit.FAILED).err
    with running_server() as other:
        there = ["--base-url", other.base_url, "--api-key", other.key]
        assert (
            f"imported run {run_id} of flow words: completed" in printed("runs", "import", file, *there).out
        )
        again = printed("runs", "export", run_id, "-o", "-", *there).out
        reader = other.make_key("acme", "demo", "read")
        denied = ["--base-url", other.base_url, "--api-key", reader]
        printed("runs", "import", file, *denied, code=Exit.DENIED)
    assert again == Path(file).read_text()


def test_a_server_that_is_killed_in_the_middle_of_an_import_keeps_nothing_of_it(
    run_id: str, tmp_path: Path
) -> None:
    data, file = tmp_path / "data", tmp_path / "run.jsonl"
    assert main(["runs", "export", run_id, "--format", "jsonl", "-o", str(file)]) == Exit.OK
    key = fill(data)
    whole = file.read_bytes()
    header, first, _ = whole.split(b"\n", 2)
    # More than one piece, so that some of it is written before the end has come.
    padded = b"".join([header, b"\n", first, b"\n", b" " * 600_000])
    with started("serve", "--port", "0", "--data", data) as server:
        url = urlsplit(server.line().split()[1])
        with socket.create_connection((url.hostname, url.port), timeout=60) as connection:
            connection.sendall(
                f"POST /api/v1/flow-runs/import HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
                f"Content-Length: {len(padded) + len(whole)}\r\n\r\n".encode()
                + padded
            )
            eventually(lambda: count(data, "event") == 1)
            server.kill()
    assert count(data, "importing_run") == 1
    # Rows of what was given up stay until nobody waits for a wake-up that was lost.
    with started("serve", "--port", "0", "--data", data, env={"RUNGLASS_TAIL_POLL_S": "0.01"}) as server:
        there = ["--base-url", server.line().split()[1], "--api-key", key]
        eventually(
            lambda: count(data, "event") == count(data, "importing_run") == count(data, "purged_run") == 0
        )
        assert main(["runs", "import", str(file), *there]) == Exit.OK
        assert server.interrupt() == Exit.OK
    assert count(data, "run") == 1
    assert main(["data", "check", "--data", str(data)]) == Exit.OK


def count(data: Path, table: str) -> int:
    with closing(sqlite3.connect(data / "runglass.db", timeout=60)) as database:
        found: int = database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return found
