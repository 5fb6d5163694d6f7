"""One server per module, with a few flows in it; a module may start its own with other settings."""

from collections.abc import Iterator

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.stores import STORES, WORKERS, own_server
from tests.contract.wire import FLOWS, http_for
from tests.faulty_store import FaultyStore

ON_EVERY_STORE = frozenset(
    {
        "test_cancel",
        "test_execute",
        "test_idempotency",
        "test_jobs",
        "test_kept_content",
        "test_lists",
        "test_reading",
        "test_removing_unreadable",
        "test_rerun",
        "test_run_input",
        "test_run_queries",
        "test_sessions",
        "test_span_export",
        "test_stepping",
        "test_stream",
        "test_tool_calls",
    }
)
"""The modules whose server runs on each kind of store in turn; that of all others is on SQLite."""

ON_WORKERS = frozenset(
    {
        "test_cancel",
        "test_execute",
        "test_idempotency",
        "test_jobs",
        "test_kept_content",
        "test_stepping",
        "test_tool_calls",
    }
)
"""Those of them that also have a server that executes nothing, and a worker beside it."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives the tests of these modules the kinds of stores."""
    name = metafunc.module.__name__.rpartition(".")[2]
    if name in ON_EVERY_STORE and "store_kind" in metafunc.fixturenames:
        kinds = (*STORES, WORKERS) if name in ON_WORKERS else STORES
        params = [kind if kind == "sqlite" else pytest.param(kind, marks=pytest.mark.slow) for kind in kinds]
        metafunc.parametrize("store_kind", params, indirect=True, scope="module")


@pytest.fixture(scope="module")
def store_kind(request: pytest.FixtureRequest) -> str:
    """The kind of store that the server of the module has."""
    kind: str = getattr(request, "param", STORES[0])
    return kind


server = own_server(*FLOWS, capture="full")


@pytest.fixture
def faults(server: RunningServer) -> Iterator[FaultyStore]:
    """The store of the server, which fails as the test says, until its end."""
    with FaultyStore(server.runtime.store) as faults:
        yield faults


@pytest.fixture(scope="module")
def http(server: RunningServer) -> Iterator[httpx2.Client]:
    with http_for(server, server.key) as client:
        yield client


@pytest.fixture(scope="module")
def nobody(server: RunningServer) -> Iterator[httpx2.Client]:
    """A caller without a key."""
    with http_for(server, None) as client:
        yield client
