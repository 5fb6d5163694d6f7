"""Which end-to-end tests `make test` runs: those of what users do first, and of what must never break."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runglass import Client
from runglass.cli import main
from runglass.testing import RunningServer

Command = Callable[..., tuple[int, str, str]]
"""Runs a command; returns its exit code and what it printed on stdout and stderr."""

QUICK = frozenset(
    {
        "test_architecture",
        "test_canary",
        "test_cli_demo",
        "test_cli_runs",
        "test_client",
        "test_client_sessions",
        "test_docs",
        "test_examples",
        "test_laws",
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
def command(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Commands that ask the module's `server`."""
    monkeypatch.setenv("RUNGLASS_BASE_URL", server.base_url)
    monkeypatch.setenv("RUNGLASS_API_KEY", server.key)
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        return code, *capsys.readouterr()

    return run
