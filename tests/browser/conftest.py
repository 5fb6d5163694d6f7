"""One browser for all, and one server for each module, with the runs that most tests look at.

They are those that `runglass demo` leaves behind: what a newcomer sees.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, expect

from runglass.cli.demo.run import example_flows, leave_example_runs
from runglass.client import Client
from runglass.config.settings import Price
from runglass.testing import ORG, PROJECT, RunningServer
from tests.browser.chromium import launched
from tests.browser.visitor import WAIT_MS, Visitor, visiting
from tests.servers import server_with

expect.set_options(timeout=WAIT_MS)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", action="store_true", help="write docs/viewer anew")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The module that takes longest begins first: one worker has it while the others do all else."""
    items.sort(key=lambda item: item.path.name != "test_screens.py")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


price = Price(input_per_mtok=Decimal("0.15"), output_per_mtok=Decimal("0.60"))
server = server_with(capture="full", prices={"echo": price}, log_level="error")


class Runs(NamedTuple):
    """The ids of the demo's runs, by what came of them; `good` and `failed` are of the same flow."""

    good: str
    failed: str
    retried: str
    nested: str
    cancelled: str
    waiting: str


@pytest.fixture(scope="module")
def runs(server: RunningServer) -> Runs:
    """The runs that the demo leaves behind, in `acme/demo` of the server."""
    for flow in example_flows():
        server.push(flow.encode().decode())
    with Client(server.key, base_url=server.base_url) as client:
        found = [client.run(run_id).trace() for run_id in leave_example_runs(client, f"{ORG}/{PROJECT}")]
    by_kind = {(trace.flow_run.flow_slug, trace.flow_run.status): trace.flow_run.id for trace in found}
    return Runs(
        good=by_kind["add-up-orders", "completed"],
        failed=by_kind["add-up-orders", "failed"],
        retried=by_kind["ask-a-flaky-source", "completed"],
        nested=by_kind["search-a-grid", "completed"],
        cancelled=by_kind["wait-for-a-person", "cancelled"],
        waiting=by_kind["answer-with-tools", "paused"],
    )


@pytest.fixture
def visitor(browser: Browser, server: RunningServer) -> Iterator[Visitor]:
    """Somebody who is signed in with an admin key."""
    with visiting(browser, server.address, server.key) as visitor:
        yield visitor


@pytest.fixture
def stranger(browser: Browser, server: RunningServer) -> Iterator[Visitor]:
    """Somebody who is not signed in."""
    with visiting(browser, server.address) as visitor:
        yield visitor
