"""A scripted server and both sides of the client for every test that goes over a socket."""

from collections.abc import Iterator

import pytest

from tests.unit.client.scripted import ScriptedServer
from tests.unit.client.sides import Blocking


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    for name in (*names, *map(str.lower, names), "RUNGLASS_API_KEY", "RUNGLASS_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where all that is tested is written once, the blocking half is not tested again."""
    once = {"test_half_texts", "test_jobs", "test_steps"}
    items[:] = [
        item
        for item in items
        if not (
            item.path.stem in once
            and isinstance(item, pytest.Function)
            and hasattr(item, "callspec")
            and item.callspec.params.get("side") is Blocking
        )
    ]
