"""One browser for all, and one server for each module, with the runs that most tests look at."""

from collections.abc import Iterator
from decimal import Decimal

import pytest
from playwright.sync_api import Browser, expect

from runglass.config.settings import Price
from runglass.testing import RunningServer, running_server
from tests.browser.chromium import launched
from tests.browser.demo_runs import Runs, leave_demo_runs
from tests.browser.visitor import WAIT_MS, Visitor, visiting

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


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[RunningServer, Runs]]:
    price = Price(input_per_mtok=Decimal("0.15"), output_per_mtok=Decimal("0.60"))
    with running_server(capture="full", prices={"echo": price}, log_level="error") as server:
        yield server, leave_demo_runs(server)


@pytest.fixture(scope="module")
def server(served: tuple[RunningServer, Runs]) -> RunningServer:
    return served[0]


@pytest.fixture(scope="module")
def runs(served: tuple[RunningServer, Runs]) -> Runs:
    """The runs that the demo leaves behind."""
    return served[1]


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
