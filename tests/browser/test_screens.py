"""Each page and state of the viewer: as axe sees it, in light and dark, at every width; and screenshots.

More than 300 lines: each state has a few. That what must not happen on a page is noticed is shown here, too.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from runglass.testing import ORG, PROJECT, RunningServer
from tests.browser.fixed_runs import NOW, SENT, FixedRuns, leave_fixed_runs
from tests.browser.run_page import open_run, panel
from tests.browser.visitor import CANARY, HEIGHT, NARROW, WIDTH, Theme, Visitor, unanswered, visiting
from tests.servers import server_with

Show: TypeAlias = Callable[[Visitor, FixedRuns], Page]


class Screen(NamedTuple):
    """A state of a page: `show` brings a visitor there and returns once all of it is shown."""

    about: str
    show: Show
    role: Literal["admin", "read"] | None = "admin"
    project: str = PROJECT
    is_important: bool = False
    is_wide: bool = False


def _page(path: str, text: str, *statuses: int, without: str | None = None) -> Show:
    """The page at a path, in which a name stands for the run's id, once it has this text.

    The API answers requests with these statuses, and those to the address `without` with nothing at all.
    """

    def show(visitor: Visitor, runs: FixedRuns) -> Page:
        visitor.expect(*statuses)
        if without is not None:
            visitor.page.route(without, unanswered)
        page = visitor.open(path.format_map(runs.ids))
        expect(page.get_by_text(text).last).to_be_visible()
        return page

    return show


def _refused(visitor: Visitor, _: FixedRuns) -> Page:
    page = visitor.open("/")
    page.get_by_label("API key").fill("nk_live_that-nobody-has-made")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("This key is unknown or revoked.")
    return page


def _runs(visitor: Visitor, runs: FixedRuns) -> Page:
    page = visitor.open("/")
    expect(page.locator("tbody tr")).to_have_count(len(runs))
    expect(page.locator(".histogram svg")).to_be_visible()
    return page


def _completions(visitor: Visitor, runs: FixedRuns) -> Page:
    page = _runs(visitor, runs)
    page.get_by_role("combobox", name="Query").press_sequentially("status:")
    expect(page.get_by_role("option").first).to_be_visible()
    return page


def _lost_list(visitor: Visitor, runs: FixedRuns) -> Page:
    visitor.page.route("**/flow-runs/stream*", lambda route: route.abort())
    page = _runs(visitor, runs)
    expect(page.get_by_text("Connection lost")).to_be_visible()
    return page


def _two_chosen(visitor: Visitor, runs: FixedRuns) -> Page:
    page = _runs(visitor, runs)
    visitor.keys("j", "x", "j", "x")
    expect(page.get_by_role("button", name="Compare runs")).to_be_enabled()
    return page


def _attempt(name: str, tab: str, **address: object) -> Show:
    def show(visitor: Visitor, runs: FixedRuns) -> Page:
        page = open_run(visitor, runs.ids[name], **address, tab=tab)
        expect(panel(page).get_by_role("tab", name=tab, selected=True)).to_be_visible()
        expect(panel(page)).not_to_contain_text("Loading")
        expect(panel(page)).not_to_contain_text("Comparing")
        return page

    return show


def _run(name: str) -> Show:
    return lambda visitor, runs: open_run(visitor, runs.ids[name])


def _lost_run(visitor: Visitor, runs: FixedRuns) -> Page:
    visitor.page.route("**/trace/stream?*", lambda route: route.abort())
    page = open_run(visitor, runs.ids["going"])
    expect(page.get_by_role("button", name="Retry now")).to_be_visible()
    return page


def _going_run(visitor: Visitor, runs: FixedRuns) -> Page:
    page = open_run(visitor, runs.ids["going"])
    expect(page.locator("header.top")).to_contain_text("live")
    expect(page.get_by_role("treeitem", name="5 of 12")).to_be_visible()
    return page


def _streaming(visitor: Visitor, runs: FixedRuns) -> Page:
    page = open_run(visitor, runs.ids["going"], step="each_order/describe", iteration=4, tab="chat")
    expect(page.locator("header.top")).to_contain_text("live")
    runs.say("Somebody would like some rice, please, ")
    expect(panel(page).get_by_role("tab", name="chat")).to_have_attribute("aria-selected", "true")
    expect(panel(page)).to_contain_text("some rice, please")
    return page


def _cut_run(visitor: Visitor, runs: FixedRuns) -> Page:
    page = open_run(visitor, runs.ids["cut"])
    page.get_by_role("button", name="Show only truncated").click()
    expect(page.get_by_role("status").filter(has_text="2 found")).to_be_visible()
    expect(page.get_by_role("treeitem", name="describe truncated (max_tokens)")).to_have_count(2)
    return page


def _recorded_runs(visitor: Visitor, _: FixedRuns) -> Page:
    page = visitor.open("/")
    expect(page.locator("tbody tr")).to_have_count(1)
    with page.expect_response(re.compile(r"/flow-runs\?.*kind%3Arecorded")):
        page.get_by_role("button", name="recorded").click()
    # The rows of the list before are pale until then, and there are as many.
    expect(page.locator(".scroller")).to_have_attribute("aria-busy", "false")
    return page


def _dialog(key: str) -> Show:
    def show(visitor: Visitor, runs: FixedRuns) -> Page:
        page = open_run(visitor, runs.ids["failed"])
        visitor.keys(key)
        expect(page.get_by_role("dialog")).to_be_visible()
        return page

    return show


NO_RUN = "01900000-0000-7000-8000-000000000000"
_FAILED = {"step": "each_order/price", "iteration": 1, "attempt": 2}

SCREENS: dict[str, Screen] = {
    "sign-in": Screen("Sign-in with a key", _page("/", "API key"), role=None, is_important=True),
    "used-ticket": Screen("Sign-in after a used link", _page("/?ticket=used", "already used"), role=None),
    "key-refused": Screen("An unknown key", _refused, role=None),
    "runs": Screen("The runs of a project", _runs, is_important=True, is_wide=True),
    "runs-none": Screen("A project without runs", _page("/", "No runs yet"), project="empty"),
    "runs-loading": Screen("Runs while they load", _page("/", "Loading …", without="**/flow-runs?*")),
    "runs-lost": Screen("Runs without a connection", _lost_list),
    "runs-completions": Screen("Completion of a query", _completions),
    "runs-nothing": Screen("A query without results", _page("/?q=cost:%3E1000", "No run matches")),
    "runs-unknown-names": Screen(
        "A query with unknown names", _page("/?q=step:nosuch+model:gpt-9", "called a model gpt-9")
    ),
    "runs-wrong-query": Screen("An invalid query", _page("/?q=statsu:failed", "Invalid query", 422)),
    "runs-two-chosen": Screen("Two runs selected for comparison", _two_chosen),
    "run-good": Screen("A completed run", _run("good")),
    "run-failed": Screen(
        "A failed run", _attempt("failed", "overview", **_FAILED), is_important=True, is_wide=True
    ),
    "run-input": Screen("The input of an attempt", _attempt("failed", "input", **_FAILED)),
    "run-error": Screen("The error of an attempt", _attempt("failed", "error", **_FAILED)),
    "run-compared": Screen("An attempt beside a completed one", _attempt("failed", "compare", **_FAILED)),
    "run-raw": Screen("The raw JSON of an attempt", _attempt("failed", "raw", **_FAILED)),
    "run-chat": Screen(
        "The conversation of an llm step",
        _attempt("good", "chat", step="each_order/describe", iteration=0),
        is_important=True,
    ),
    "run-retried": Screen(
        "Attempts and the waits between them", _attempt("retried", "overview", step="ask", attempt=3)
    ),
    "run-nested": Screen(
        "Two thousand iterations in nested loops",
        _attempt("nested", "output", step="each_row/each_cell/look", iteration="31,47"),
        is_important=True,
        is_wide=True,
    ),
    "run-cancelled": Screen("A cancelled run", _run("cancelled")),
    "run-waiting": Screen("A run waiting for tool results", _attempt("waiting", "chat", step="answer")),
    "run-going": Screen("An active run", _going_run, is_important=True, is_wide=True),
    "run-streaming": Screen("Text of a model while it streams", _streaming, is_important=True),
    "run-lost": Screen("An active run without a connection", _lost_run),
    "run-read-only": Screen("An active run, for a read key", _going_run, role="read"),
    "run-loading": Screen(
        "A run while it loads", _page("/runs/{failed}", "Loading the run …", without="**/trace/outline?*")
    ),
    "run-recovered": Screen(
        "An interrupted attempt and its retry", _attempt("recovered", "error", step="ask", attempt=1)
    ),
    "run-uncaptured": Screen(
        "A run with capture mode off", _attempt("uncaptured", "input", step="each_order/price", iteration=0)
    ),
    "run-expired": Screen("A run whose content has expired", _attempt("expired", "input", **_FAILED)),
    "run-cut": Screen("A run with truncated texts, filtered", _cut_run),
    "runs-recorded": Screen("Runs of other programs", _recorded_runs, project=SENT),
    "run-recorded": Screen(
        "A recorded run",
        _attempt("recorded", "overview", step="chat_gpt-4o", iteration=1),
        project=SENT,
        is_important=True,
    ),
    "run-missing": Screen("A missing run", _page(f"/runs/{NO_RUN}", "Run not found", 404)),
    "keys": Screen("Keyboard shortcuts", _dialog("?")),
    "palette": Screen("Command palette", _dialog("Control+k")),
    "compare": Screen(
        "Comparison of a completed and a failed run",
        _page("/compare/{good}/{failed}", "first difference"),
        is_important=True,
    ),
}


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
    page, text = FOLDER / "README.md", "\n".join(lines_of_page())
    if request.config.getoption("--screenshots"):
        page.write_text(text, "utf-8")
    again = "run `make test-browser ARGS=--screenshots`"
    assert page.read_text("utf-8") == text, again
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


def lines_of_page() -> Iterator[str]:
    """Those of `docs/viewer/README.md`: each screen with its pictures."""
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


@pytest.mark.parametrize("wrong", WRONGS)
def test_whatever_goes_wrong_on_a_page_fails_the_test(
    browser: Browser, server: RunningServer, wrong: str
) -> None:
    with pytest.raises(AssertionError, match=wrong), visiting(browser, server.address) as visitor:
        visitor.open("/").evaluate(f"async () => {{ {WRONGS[wrong]} }}")
