"""Where things stand on the page of a run."""

import re
from collections.abc import Sequence
from urllib.parse import urlencode

from playwright.sync_api import Locator, Page, expect

from tests.browser.visitor import Visitor

TABS = ["Overview", "Input", "Output", "Error", "Chat", "Raw"]

FOREIGN_ELEMENTS = """() => document.querySelectorAll([
    'script:not([src^="/viewer/"])', 'form:not([method=dialog])',
    'link:not([href^="/viewer/"])',
    'iframe', 'img', 'object', 'embed', 'base', 'style', 'meta[http-equiv]', 'video', 'marquee', 'x-y',
    '[onerror]', '[onload]', '[onclick]', '[onfocus]', '[onbegin]',
].join()).length"""
"""Elements that the viewer never makes."""

MISSING = "(all, texts) => texts.filter((text) => !all.textContent.includes(text))"
"""Those of the texts that an element does not show."""


def open_run(visitor: Visitor, run_id: str, **address: object) -> Page:
    """The page of a run, or what is at this address on it, once its tree is shown."""
    query = f"?{urlencode({name: str(part) for name, part in address.items()})}" if address else ""
    page = visitor.open(f"/runs/{run_id}{query}")
    page.locator(".line").first.wait_for()
    return page


def lines(page: Page) -> Locator:
    """The lines of the tree that can be seen."""
    return page.locator(".line:not([hidden])")


def selected(page: Page) -> Locator:
    """The line of the tree that is selected."""
    return page.get_by_role("treeitem", selected=True)


def panel(page: Page) -> Locator:
    """What is shown of the selected line."""
    return page.get_by_role("complementary", name="Selection")


def toast(page: Page) -> Locator:
    """What the page has said last for a moment; its text stays when it is not shown any more."""
    return page.locator(".toast")


def tab(page: Page, name: str) -> Locator:
    """The tab of the panel with this name."""
    return panel(page).get_by_role("tab", name=name)


def labels(page: Page) -> Sequence[str]:
    """The lines of the tree without what changes from run to run: name, kind, status and counts."""
    found: list[str] = lines(page).evaluate_all("all => all.map((line) => line.getAttribute('aria-label'))")
    return [re.sub(r" (\d+ m )?[\d.]+ m?s( …)?(?=, )", "", label.replace("\xa0", " ")) for label in found]


def look_at_each_tab(visitor: Visitor) -> None:
    """Shows each tab of the panel by its key. None has elements that the viewer never makes."""
    for number, name in enumerate(TABS, 1):
        wanted = tab(visitor.page, name)
        if wanted.count():
            visitor.keys(str(number))
            expect(wanted).to_have_attribute("aria-selected", "true")
            assert visitor.page.evaluate(FOREIGN_ELEMENTS) == 0
