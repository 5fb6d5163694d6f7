"""Every page in light and dark, as axe sees it."""

import pytest
from playwright.sync_api import Browser, expect

from runglass.testing import RunningServer
from tests.browser.axe import violations
from tests.browser.visitor import Theme, Visitor, visiting

THEMES: list[Theme] = ["light", "dark"]


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_on_any_page(browser: Browser, server: RunningServer, theme: Theme) -> None:
    with visiting(browser, server.address, server.key, theme=theme) as visitor:
        page = visitor.open("/")
        expect(page.locator("tbody tr").first).to_be_visible()
        assert violations(page) == []


def test_axe_finds_what_is_wrong(visitor: Visitor) -> None:
    page = visitor.open("/")
    page.evaluate("document.querySelector('main').append(document.createElement('input'))")
    assert [line.partition(" ")[0] for line in violations(page)] == ["label"]
