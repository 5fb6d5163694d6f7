"""Hostile data in everything that a run has: pages show it as text, execute none and stay whole."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Route, expect

from runglass.testing import RunningServer, running_server
from tests.browser.hostile_logs import (
    NAMES_RUN,
    REFUSED,
    STRUCTURES,
    STRUCTURES_RUN,
    TEXTS_RUN,
    TOGETHER,
    carried,
    groups,
    listed_logs,
    names_log,
    structures_log,
    texts_log,
)
from tests.browser.payloads import kinds, texts
from tests.browser.run_page import FOREIGN_ELEMENTS, MISSING, look_at_each_tab, open_run, panel, selected
from tests.browser.stored_runs import store_runs
from tests.browser.visitor import Visitor

SHOWN_WHOLE = 2_000
"""Longer texts are cut until somebody asks for all."""
READ_ON = """count => {
    const scroller = document.querySelector('.scroller');
    scroller.scrollTop = scroller.scrollHeight;
    return document.querySelectorAll('tbody tr').length >= count;
}"""
OPEN_ALL = "document.querySelectorAll('.diff-row > [aria-expanded=false]').forEach((each) => each.click())"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(log_level="error") as server:
        store_runs(server, [texts_log(), names_log(), structures_log(), *listed_logs()])
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


def test_every_run_of_the_list_is_shown_whatever_is_in_it(visitor: Visitor) -> None:
    wanted = ["f"] * 3 + list(map(carried, texts()))
    page = visitor.open("/")
    page.wait_for_function(READ_ON, arg=len(wanted), polling=50)
    shown = page.locator("tbody td.c-flow bdi")
    expect(shown).to_have_count(len(wanted))
    assert shown.all_text_contents()[::-1] == wanted


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
