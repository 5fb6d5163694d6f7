"""Hostile structures in everything that a run has: its page stays whole, whatever their depth and size."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Route, expect

from runglass.testing import RunningServer, running_server
from tests.browser.hostile_logs import (
    REFUSED,
    STRUCTURES,
    STRUCTURES_RUN,
    structures_log,
)
from tests.browser.run_page import look_at_each_tab, open_run, panel
from tests.browser.stored_runs import store_runs
from tests.browser.visitor import Visitor


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(log_level="error") as server:
        store_runs(server, [structures_log()])
        yield server


def let_through(route: Route) -> None:
    """Answers as a server would that refuses nothing."""
    answer = route.fetch()
    text = answer.text()
    for content, name in REFUSED.items():
        text = text.replace(name, content)
    route.fulfill(response=answer, body=text)


def test_structures_of_any_depth_and_size_leave_the_page_whole(visitor: Visitor) -> None:
    visitor.expect(404)  # Nobody knows its flow.
    visitor.page.route("**/trace?*attempt=*", let_through)
    page = open_run(visitor, STRUCTURES_RUN)
    visitor.keys("Enter")
    for number in range(len(STRUCTURES)):
        visitor.keys("j", "2")
        expect(panel(page).get_by_role("heading", level=2)).to_have_text(f"s{number}")
        expect(panel(page).locator(".json-line, pre").first).to_be_visible()
        more = panel(page).get_by_role("button", name=re.compile("^Show .* more$"))
        if more.count():
            more.click()
            expect(panel(page)).not_to_contain_text("the first 66 kB")
        look_at_each_tab(visitor)
