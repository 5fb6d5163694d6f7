"""Runs as files, by the client and the command: exported whole, or not at all."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from runglass import AsyncClient, Client
from runglass.cli import main
from runglass.cli.exit_codes import Exit
from runglass.errors import FlowNotFoundError
from runglass.testing import RunningServer, running_server
from tests.contract.wire import WORDS, execute, http_for


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(capture="full") as running:
        running.push(WORDS)
        yield running


@pytest.fixture(scope="module")
def http(server: RunningServer) -> Iterator[httpx2.Client]:
    with http_for(server, server.key) as client:
        yield client


@pytest.fixture(scope="module")
def run_id(http: httpx2.Client) -> str:
    return execute(http, "words", message="a bb")


@pytest.fixture(autouse=True)
def environment(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNGLASS_BASE_URL", server.base_url)
    monkeypatch.setenv("RUNGLASS_API_KEY", server.key)


@pytest.mark.parametrize("format", ["json", "jsonl"])
async def test_both_clients_get_what_the_server_sends(
    server: RunningServer, http: httpx2.Client, run_id: str, format: str
) -> None:
    sent = http.get(f"/flow-runs/{run_id}/export", params={"format": format}).content
    with Client() as client:
        assert b"".join(client.run(run_id).export(format)) == sent  # type: ignore[arg-type]
    async with AsyncClient() as client_on_asyncio:
        parts = [part async for part in client_on_asyncio.run(run_id).export(format)]  # type: ignore[arg-type]
    assert b"".join(parts) == sent


async def test_an_unknown_run_or_format_is_told_by_both_clients() -> None:
    nowhere = "01900000-0000-7000-8000-000000000000"
    with Client() as client:
        with pytest.raises(FlowNotFoundError):
            next(client.run(nowhere).export())
        with pytest.raises(ValueError, match="json, jsonl"):
            client.run(nowhere).export("xml")  # type: ignore[arg-type]
    async with AsyncClient() as client_on_asyncio:
        with pytest.raises(FlowNotFoundError):
            await anext(client_on_asyncio.run(nowhere).export())


def test_the_command_writes_a_new_file_that_only_its_owner_reads(
    http: httpx2.Client, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["runs", "export", run_id[-8:], "--format", "jsonl"]) == Exit.OK
    (file,) = tmp_path.iterdir()
    assert file.name == f"run-{run_id}.jsonl"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_bytes() == http.get(f"/flow-runs/{run_id}/export?format=jsonl").content


def test_the_command_leaves_a_file_that_exists_as_it_is(
    run_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine"
    file.write_text("mine")
    assert main(["runs", "export", run_id, "-o", str(file)]) == Exit.USAGE
    assert "cannot be written as a new file" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_the_command_writes_to_stdout_where_the_file_is_a_dash(
    http: httpx2.Client, run_id: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["runs", "export", run_id, "-o", "-"]) == Exit.OK
    written = capsysbinary.readouterr().out
    assert json.loads(written) == http.get(f"/flow-runs/{run_id}/export").json()


def test_an_unknown_run_leaves_no_file(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    nowhere = "01900000-0000-7000-8000-000000000000"
    assert main(["runs", "export", nowhere, "-o", str(file)]) == Exit.NOT_FOUND
    assert not file.exists()
