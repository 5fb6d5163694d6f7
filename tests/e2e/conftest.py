"""Which end-to-end tests `make test` runs: those of what users do first, and of what must never break."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from runglass import AsyncClient, Client
from runglass.cli import main
from runglass.cli.exit_codes import Exit
from runglass.testing import RunningServer


class Output(NamedTuple):
    """What a command has printed on stdout and stderr."""

    out: str
    err: str


Printed = Callable[..., Output]
"""Runs a command, which must end with the exit code `code`; returns what it printed."""

QUICK = frozenset(
    {
        "test_canary",
        "test_cli_demo",
        "test_cli_runs",
        "test_client",
        "test_client_sessions",
        "test_docs",
        "test_replay",
    }
)
"""The modules that are not slow."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks all others in this folder slow."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.stem not in QUICK:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    """A client of the module's `server`."""
    with Client(server.key, base_url=server.base_url, org="acme", project="demo") as client:
        yield client


@pytest.fixture
async def on_asyncio(server: RunningServer) -> AsyncIterator[AsyncClient]:
    """The same on asyncio: `client = on_asyncio` in a module."""
    async with AsyncClient(server.key, base_url=server.base_url, org="acme", project="demo") as client:
        yield client


@pytest.fixture
def variables(server: RunningServer) -> dict[str, str]:
    """With these a command asks the module's `server`."""
    return {"RUNGLASS_BASE_URL": server.base_url, "RUNGLASS_API_KEY": server.key}


@pytest.fixture
def connected(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of this process ask the module's `server`."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands are in an empty folder, and no variable names another place."""
    for name in ("RUNGLASS_API_KEY", "RUNGLASS_BASE_URL", "RUNGLASS_DATA", "RUNGLASS_STORE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    def run(*arguments: str | Path, code: int = Exit.OK) -> Output:
        capsys.readouterr()
        ended = main(list(map(str, arguments)))
        output = Output(*capsys.readouterr())
        assert ended == code, f"{arguments}: {output}"
        return output

    return run
