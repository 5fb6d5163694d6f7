"""Hostile text in everything that a run has: its page shows it as text, executes none and stays whole."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from runglass.testing import RunningServer, running_server
from tests.browser.hostile_logs import (
    TEXTS_RUN,
    carried,
    groups,
    texts_log,
)
from tests.browser.payloads import structures, texts
from tests.browser.run_page import look_at_each_tab, open_run, panel
from tests.browser.stored_runs import store_runs
from tests.browser.visitor import Visitor

SHOWN_WHOLE = 2_000
"""Longer texts are cut until somebody asks for all."""
MISSING = "(all, texts) => texts.filter((text) => !all.textContent.includes(text))"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(log_level="error") as server:
        store_runs(server, [texts_log()])
        yield server


def test_each_text_is_shown_as_the_text_that_it_is(visitor: Visitor) -> None:
    visitor.expect(404)  # Nobody knows its flow.
    page = open_run(visitor, TEXTS_RUN)
    expect(page.get_by_role("group", name="Input").locator(".json-name")).not_to_have_count(0)
    expect(page.locator(".overrides .note-part")).not_to_have_count(0)
    visitor.keys("Enter")
    for number, group in enumerate(groups()):
        visitor.keys("j", "2")
        expect(panel(page).get_by_role("heading", level=2)).to_have_text(re.compile(rf"^s{number}\b"))
        expect(panel(page).locator(".json-name")).to_have_count(1 + len(set(map(carried, group))))
        whole = [carried(text) for text in group if len(text) < SHOWN_WHOLE]
        assert panel(page).evaluate(MISSING, whole) == []
        look_at_each_tab(visitor)


def test_there_are_five_hundred_payloads_and_more() -> None:
    assert len(texts()) + len(structures()) > 500
