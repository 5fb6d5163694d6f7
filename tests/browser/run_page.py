"""Where things stand on the page of a run."""

import re
from collections.abc import Sequence
from urllib.parse import urlencode

from playwright.sync_api import Locator, Page

from tests.browser.visitor import Visitor


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
    return page.get_by_role("complementary", name="What is selected")


def tab(page: Page, name: str) -> Locator:
    """The tab of the panel with this name."""
    return panel(page).get_by_role("tab", name=name)


def labels(page: Page) -> Sequence[str]:
    """The lines of the tree without what changes from run to run: name, kind, status and counts."""
    found: list[str] = lines(page).evaluate_all("all => all.map((line) => line.getAttribute('aria-label'))")
    return [re.sub(r" (\d+ m )?[\d.]+ m?s( …)?(?=, )", "", label.replace("\xa0", " ")) for label in found]
