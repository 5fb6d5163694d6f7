"""Each page and state of the viewer: as axe sees it, in light and dark, at every width; and screenshots."""

from collections.abc import Iterator, Sequence

import pytest
from playwright.sync_api import Browser, Page, Route

from runglass.testing import ORG, RunningServer
from tests.browser import screenshots
from tests.browser.axe import OF_COLOURS, violations
from tests.browser.fixed_runs import NOW, FixedRuns, fixed_server
from tests.browser.screens import SCREENS
from tests.browser.visitor import HEIGHT, NARROW, WIDTH, Theme, Visitor, visiting

WIDTHS = (WIDTH, 700, NARROW, 3840)
TOO_DARK = """() => {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync("@media (prefers-color-scheme: dark) { main * { color: #222 !important } }");
    document.adoptedStyleSheets.push(sheet);
}"""
WIDER = "Math.max(0, document.documentElement.scrollWidth - innerWidth)"


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[RunningServer, FixedRuns]]:
    with fixed_server() as served:
        yield served


@pytest.mark.parametrize("name", SCREENS)
def test_a_page_is_for_everybody_and_fits_every_screen(
    browser: Browser,
    served: tuple[RunningServer, FixedRuns],
    name: str,
    request: pytest.FixtureRequest,
) -> None:
    screen, (server, runs) = SCREENS[name], served
    key = None if screen.role is None else server.make_key(ORG, screen.project, screen.role)
    with visiting(browser, server.address, key) as visitor:
        visitor.page.clock.set_fixed_time(NOW)
        visitor.page.route("**/flow-runs/histogram?*", until_now)
        page = screen.show(visitor, runs)
        assert violations_in(page, "light") == []
        # The same elements in other colours.
        assert violations_in(page, "dark", OF_COLOURS) == []
        if request.config.getoption("--screenshots"):
            screenshots.take(page, name)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": HEIGHT})
            assert page.evaluate(WIDER) == 0, f"at {width} px"


def test_axe_finds_what_is_wrong(visitor: Visitor) -> None:
    page = visitor.open("/")
    page.evaluate("document.querySelector('main').append(document.createElement('input'))")
    assert [line.partition(" ")[0] for line in violations(page)] == ["label"]
    assert violations(page, OF_COLOURS) == []
    page.evaluate(TOO_DARK)
    assert violations_in(page, "light", OF_COLOURS) == []
    found = violations_in(page, "dark", OF_COLOURS)
    assert {line.split(" ")[1] for line in found} == {"color-contrast"}


def test_each_screen_has_its_screenshots_and_they_are_shown(request: pytest.FixtureRequest) -> None:
    page = screenshots.FOLDER / "README.md"
    if request.config.getoption("--screenshots"):
        page.write_text(screenshots.page_of_all(), "utf-8")
    again = "run `make test-browser ARGS=--screenshots`"
    assert page.read_text("utf-8") == screenshots.page_of_all(), again
    found = {path.name: path.stat().st_size for path in screenshots.FOLDER.glob("*.png")}
    expected = {kind.file_name(name) for name in SCREENS for kind in screenshots.kinds_of(name)}
    assert set(found) == expected, again
    assert {name: size for name, size in found.items() if size > screenshots.LARGEST_BYTES} == {}


def violations_in(page: Page, theme: Theme, rules: Sequence[str] = ()) -> list[str]:
    page.emulate_media(color_scheme=theme)
    return [f"{theme}: {line}" for line in violations(page, rules)]


def until_now(route: Route) -> None:
    # The strip of runs over time ends now, which is another time each day.
    route.continue_(url=f"{route.request.url}&until={NOW:%Y-%m-%dT%H:%M:%SZ}")
