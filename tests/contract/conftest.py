"""One server per module, with a few flows in it; a module may start its own with other settings."""

from collections.abc import Iterator

import httpx2
import pytest

from runglass.testing import RunningServer, running_server
from tests.contract.wire import FLOWS, http_for


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(capture="full") as running:
        for flow in FLOWS:
            running.push(flow)
        yield running


@pytest.fixture(scope="module")
def http(server: RunningServer) -> Iterator[httpx2.Client]:
    with http_for(server, server.key) as client:
        yield client


@pytest.fixture(scope="module")
def nobody(server: RunningServer) -> Iterator[httpx2.Client]:
    """A caller without a key."""
    with http_for(server, None) as client:
        yield client
