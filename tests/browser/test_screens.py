"""Each page and state of the viewer: as axe sees it, in light and dark, at every width; and screenshots.

And that what must not happen on a page is noticed where it happens.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, Page, Route

from runglass.testing import ORG, RunningServer
from tests.browser.fixed_runs import NOW, FixedRuns, leave_fixed_runs
from tests.browser.screens import SCREENS
from tests.browser.visitor import CANARY, HEIGHT, NARROW, WIDTH, Theme, Visitor, visiting
from tests.servers import server_with

FOLDER = Path(__file__).parents[2] / "docs" / "viewer"
LARGEST_BYTES = 150_000
MOST_PICTURES = 20
"""Of the pictures of `docs/viewer`, which `--screenshots` takes."""
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
OF_COLOURS = ("color-contrast", "link-in-text-block")
"""The rules whose outcome may be another one in other colours."""
WIDTHS = (WIDTH, 700, NARROW, 3840)
TOO_DARK = """() => {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync("@media (prefers-color-scheme: dark) { main * { color: #222 !important } }");
    document.adoptedStyleSheets.push(sheet);
}"""
WIDER = "Math.max(0, document.documentElement.scrollWidth - innerWidth)"


class Kind(NamedTuple):
    """A size and a theme."""

    theme: Theme
    width: int

    def file_name(self, screen: str) -> str:
        """What the picture of a screen is called."""
        return f"{screen}-{self.width}-{self.theme}.png"


_TWO = (Kind("light", WIDTH), Kind("dark", NARROW))
_VERY_WIDE = Kind("light", 2560)
_FOUR = (Kind("light", WIDTH), Kind("dark", WIDTH), Kind("light", NARROW), Kind("dark", NARROW))


def kinds_of(screen: str) -> tuple[Kind, ...]:
    """The pictures that there are of a screen: all of the most important ones."""
    kinds = _FOUR if SCREENS[screen].is_important else _TWO
    return (*kinds, _VERY_WIDE) if SCREENS[screen].is_wide else kinds


server = server_with(log_level="error", recording_settle_s=0)


@pytest.fixture(scope="module")
def runs(server: RunningServer) -> FixedRuns:
    return leave_fixed_runs(server)


@pytest.mark.parametrize("name", SCREENS)
def test_a_page_is_for_everybody_and_fits_every_screen(
    browser: Browser, server: RunningServer, runs: FixedRuns, name: str, request: pytest.FixtureRequest
) -> None:
    screen = SCREENS[name]
    key = None if screen.role is None else server.make_key(ORG, screen.project, screen.role)
    with visiting(browser, server.address, key) as visitor:
        visitor.page.clock.set_fixed_time(NOW)
        visitor.page.route("**/flow-runs/histogram?*", until_now)
        page = screen.show(visitor, runs)
        assert violations(page, "light") == []
        # The same elements in other colours.
        assert violations(page, "dark", OF_COLOURS) == []
        if request.config.getoption("--screenshots"):
            take(page, name)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": HEIGHT})
            assert page.evaluate(WIDER) == 0, f"at {width} px"


@pytest.mark.usefixtures("runs")
def test_axe_finds_what_is_wrong(visitor: Visitor) -> None:
    page = visitor.open("/")
    page.evaluate("document.querySelector('main').append(document.createElement('input'))")
    assert [line.partition(" ")[0] for line in violations(page, "light")] == ["label"]
    page.evaluate(TOO_DARK)
    assert violations(page, "light", OF_COLOURS) == []
    found = violations(page, "dark", OF_COLOURS)
    assert {line.partition(" ")[0] for line in found} == {"color-contrast"}


def test_each_screen_has_its_screenshots_and_they_are_shown(request: pytest.FixtureRequest) -> None:
    page = FOLDER / "README.md"
    if request.config.getoption("--screenshots"):
        page.write_text(page_of_all(), "utf-8")
    again = "run `make test-browser ARGS=--screenshots`"
    assert page.read_text("utf-8") == page_of_all(), again
    found = {path.name: path.stat().st_size for path in FOLDER.glob("*.png")}
    expected = {kind.file_name(name) for name in SCREENS for kind in kinds_of(name)}
    assert set(found) == expected, again
    assert {name: size for name, size in found.items() if size > LARGEST_BYTES} == {}


def violations(page: Page, theme: Theme, rules: Sequence[str] = ()) -> list[str]:
    """A line for each element and rule that it breaks, of these rules, or of all that axe has.

    Those for best practice are among them.
    """
    page.emulate_media(color_scheme=theme)
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text("utf-8"))
    options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
    found: dict[str, Any] = page.evaluate("options => axe.run(options)", options)
    return [
        f"{violation['id']} ({theme}, {violation['impact']}): {violation['help']}: {node['html'][:200]}"
        f" – {node['failureSummary']}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]


def until_now(route: Route) -> None:
    # The strip of runs over time ends now, which is another time each day.
    route.continue_(url=f"{route.request.url}&until={NOW:%Y-%m-%dT%H:%M:%SZ}")


def take(page: Page, screen: str) -> None:
    """Writes the pictures of the screen that a page shows."""
    FOLDER.mkdir(exist_ok=True)
    for kind in kinds_of(screen):
        page.set_viewport_size({"width": kind.width, "height": HEIGHT})
        page.emulate_media(color_scheme=kind.theme)
        (FOLDER / kind.file_name(screen)).write_bytes(_at_rest(page))


def _at_rest(page: Page) -> bytes:
    """The picture once nothing moves any more: a canvas is painted anew some frames after the theme."""
    seen = b""
    for _ in range(MOST_PICTURES):
        page.evaluate("() => new Promise((done) => setTimeout(done, 60))")
        before, seen = seen, page.screenshot(caret="hide", animations="disabled")
        if seen == before:
            return seen
    raise AssertionError(f"{page.url} does not come to rest")


def page_of_all() -> str:
    """`docs/viewer/README.md`: each screen with its pictures."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield "# The viewer"
    yield ""
    yield "Each page and state of the viewer, on runs such as `runglass demo` leaves behind. The browser"
    yield "tests take these pictures: `make test-browser ARGS=--screenshots` rewrites them and this page."
    for name, screen in SCREENS.items():
        yield ""
        yield f"## {screen.about}"
        yield ""
        for kind in kinds_of(name):
            width = 240 if kind.width == NARROW else 720
            alt = f"{kind.width} pixels wide, {kind.theme}"
            yield f'<img src="{kind.file_name(name)}" width="{width}" alt="{alt}">'
    yield ""


WRONGS = {
    "console: oh no": "console.error('oh no')",
    "exception: oh no": "setTimeout(() => { throw new Error('oh no'); })",
    "a dialog: oh no": "setTimeout(() => alert('oh no'))",
    "404 for GET": "await fetch('/nothing')",
    "connect-src": "await fetch('http://127.0.0.1:9/').catch(() => {})",
    "img-src": "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))",
    "script-src": "Object.assign(document.createElement('a'), {href: 'javascript:1'}).click()",
    "TrustedHTML": "try { document.body.innerHTML = '<b>'; } catch { /* the browser has refused it */ }",
    "a window opened": "await new Promise((done) => { window.open('/').onload = done; })",
    "text was executed": f"window.{CANARY} = 1",
}


def run_on_a_page(browser: Browser, address: str, script: str) -> None:
    with visiting(browser, address) as visitor:
        visitor.open("/").evaluate(f"async () => {{ {script} }}")


@pytest.mark.parametrize("wrong", WRONGS)
def test_whatever_goes_wrong_on_a_page_fails_the_test(
    browser: Browser, server: RunningServer, wrong: str
) -> None:
    with pytest.raises(AssertionError, match=wrong):
        run_on_a_page(browser, server.address, WRONGS[wrong])
