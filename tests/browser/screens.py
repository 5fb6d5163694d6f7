"""Each page and state of the viewer that somebody may see, and how to get there."""

import re
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

from playwright.sync_api import Page, expect

from runglass.testing import PROJECT
from tests.browser.fixed_runs import SENT, FixedRuns
from tests.browser.run_page import open_run, panel
from tests.browser.visitor import Visitor, unanswered

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
