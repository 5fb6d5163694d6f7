"""Hostile text in names, in a comparison and in queries: it stays text."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from runglass.testing import RunningServer, running_server
from tests.browser.hostile_logs import (
    NAMES_RUN,
    TEXTS_RUN,
    TOGETHER,
    names_log,
    texts_log,
)
from tests.browser.payloads import kinds, texts
from tests.browser.run_page import FOREIGN_ELEMENTS, open_run, selected
from tests.browser.stored_runs import store_runs
from tests.browser.visitor import Visitor

OPEN_ALL = "document.querySelectorAll('.diff-row > [aria-expanded=false]').forEach((each) => each.click())"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(log_level="error") as server:
        store_runs(server, [texts_log(), names_log()])
        yield server


def test_steps_may_be_called_anything(visitor: Visitor) -> None:
    # Not everything can be part of a path, and the server says so.
    visitor.expect(400, 404, 414, 422)
    page = open_run(visitor, NAMES_RUN)
    visitor.keys("Enter")
    for _ in kinds():
        visitor.keys("j")
    expect(selected(page)).to_have_attribute("aria-posinset", str(len(kinds())))
    assert page.evaluate(FOREIGN_ELEMENTS) == 0


def test_hostile_runs_are_compared(visitor: Visitor) -> None:
    page = visitor.open(f"/compare/{TEXTS_RUN}/{NAMES_RUN}?all=true")
    expect(page.locator(".diff-row").first).to_be_visible()
    page.evaluate(OPEN_ALL)
    expect(page.get_by_role("button", expanded=True)).not_to_have_count(0)
    assert page.evaluate(FOREIGN_ELEMENTS) == 0


def test_anything_can_be_asked_for(visitor: Visitor) -> None:
    visitor.expect(422)
    page = visitor.open("/")
    field = page.get_by_role("combobox", name="Query")
    for text in texts()[::TOGETHER]:
        field.fill(text)
        visitor.keys("Enter")
        visitor.settle()
        expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_attached()
        assert page.evaluate(FOREIGN_ELEMENTS) == 0
