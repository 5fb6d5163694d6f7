"""A scripted server and both sides of the client for every test that goes over a socket."""

from collections.abc import Iterator

import pytest

from tests.unit.client.scripted import ScriptedServer


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    for name in (*names, *map(str.lower, names), "RUNGLASS_API_KEY", "RUNGLASS_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
