"""One server per module, with a few flows in it; a module may start its own with other settings."""

from collections.abc import Iterator

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.wire import FLOWS, execute, http_for
from tests.faulty_store import FaultyStore, Held
from tests.servers import STORES, WORKERS, server_with

ON_STORES = "managing reading run_input run_queries sessions span_export stream unreadable"
"""The modules whose server runs on each kind of store in turn; that of all others is on SQLite."""
ON_WORKERS = "execute idempotency jobs kept_content stepping tool_calls"
"""Those that also have a server that executes nothing, and a worker beside it."""
KINDS = dict.fromkeys(ON_STORES.split(), STORES) | dict.fromkeys(ON_WORKERS.split(), (*STORES, WORKERS))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives the tests of these modules the kinds of stores."""
    kinds = KINDS.get(metafunc.module.__name__.rpartition(".test_")[2])
    if kinds and "store_kind" in metafunc.fixturenames:
        params = [kind if kind == "sqlite" else pytest.param(kind, marks=pytest.mark.slow) for kind in kinds]
        metafunc.parametrize("store_kind", params, indirect=True, scope="module")


server = server_with(*FLOWS, capture="full")


@pytest.fixture(scope="module")
def words(http: httpx2.Client) -> str:
    """A run of `words` that has ended."""
    return execute(http, "words", message="a b")


@pytest.fixture(params=["/flow-runs/{}", "/seq/acme/demo/words/runs/{}"])
def base(request: pytest.FixtureRequest, words: str) -> str:
    """The path of that run, in either form."""
    form: str = request.param
    return form.format(words)


@pytest.fixture
def faults(server: RunningServer) -> Iterator[FaultyStore]:
    """The store of the server, which fails as the test says, until its end."""
    with FaultyStore(server.runtime.store) as faults:
        yield faults


@pytest.fixture
def checking(server: RunningServer) -> Iterator[Held]:
    """The first check of a request lasts until it is let go, as behind others."""
    with FaultyStore(server.runtime.checks) as checks:
        yield checks.hold("request", times=1)


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process of the test has a key of `openai`."""
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="module")
def nobody(server: RunningServer) -> Iterator[httpx2.Client]:
    """A caller without a key."""
    with http_for(server, None) as client:
        yield client
