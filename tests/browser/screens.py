"""Each page and state of the viewer that somebody may see, and how to get there."""

from collections.abc import Callable
from typing import NamedTuple

from playwright.sync_api import Page, expect

from tests.browser.demo_runs import Runs
from tests.browser.run_page import open_run, panel
from tests.browser.visitor import Visitor


class Screen(NamedTuple):
    """A state of a page: `show` brings a visitor there and returns once all of it is shown."""

    about: str
    show: Callable[[Visitor, Runs], Page]
    is_signed_in: bool = True
    is_important: bool = False


def _sign_in(visitor: Visitor, _: Runs) -> Page:
    page = visitor.open("/")
    expect(page.get_by_label("API key")).to_be_visible()
    return page


def _used_ticket(visitor: Visitor, _: Runs) -> Page:
    page = visitor.open("/?ticket=used")
    expect(page.get_by_text("used already")).to_be_visible()
    return page


def _runs(visitor: Visitor, runs: Runs) -> Page:
    page = visitor.open("/")
    expect(page.locator("tbody tr")).to_have_count(len(runs))
    expect(page.locator(".histogram svg")).to_be_visible()
    return page


def _completions(visitor: Visitor, runs: Runs) -> Page:
    page = _runs(visitor, runs)
    page.get_by_role("combobox", name="Query").press_sequentially("status:")
    expect(page.get_by_role("option").first).to_be_visible()
    return page


def _nothing_found(visitor: Visitor, _: Runs) -> Page:
    page = visitor.open("/?q=cost:%3E1000")
    expect(page.get_by_role("heading", name="No run matches")).to_be_visible()
    return page


def _wrong_query(visitor: Visitor, _: Runs) -> Page:
    visitor.expect(422)
    page = visitor.open("/?q=statsu:failed")
    expect(page.locator("#query-problem")).not_to_be_empty()
    return page


def _two_chosen(visitor: Visitor, runs: Runs) -> Page:
    page = _runs(visitor, runs)
    visitor.keys("j", "x", "j", "x")
    expect(page.get_by_role("button", name="Compare the two")).to_be_enabled()
    return page


def _attempt(name: str, tab: str, **address: object) -> Callable[[Visitor, Runs], Page]:
    def show(visitor: Visitor, runs: Runs) -> Page:
        page = open_run(visitor, getattr(runs, name), **address, tab=tab)
        expect(panel(page).get_by_role("tab", name=tab, selected=True)).to_be_visible()
        expect(panel(page)).not_to_contain_text("Loading")
        expect(panel(page)).not_to_contain_text("Comparing")
        return page

    return show


def _run(name: str) -> Callable[[Visitor, Runs], Page]:
    return lambda visitor, runs: open_run(visitor, getattr(runs, name))


def _no_run(visitor: Visitor, _: Runs) -> Page:
    visitor.expect(404)
    page = visitor.open("/runs/01900000-0000-7000-8000-000000000000")
    expect(page.get_by_role("heading", name="There is no such run")).to_be_visible()
    return page


def _compare(visitor: Visitor, runs: Runs) -> Page:
    page = visitor.open(f"/compare/{runs.good}/{runs.failed}")
    expect(page.locator(".diff-row").first).to_be_visible()
    return page


def _dialog(key: str) -> Callable[[Visitor, Runs], Page]:
    def show(visitor: Visitor, runs: Runs) -> Page:
        page = open_run(visitor, runs.failed)
        visitor.keys(key)
        expect(page.get_by_role("dialog")).to_be_visible()
        return page

    return show


_FAILED = {"step": "each_order/price", "iteration": 1, "attempt": 2}

SCREENS: dict[str, Screen] = {
    "sign-in": Screen("The sign-in: a key, once", _sign_in, is_signed_in=False, is_important=True),
    "used-ticket": Screen("The sign-in after a link that was used", _used_ticket, is_signed_in=False),
    "runs": Screen("The runs of a project", _runs, is_important=True),
    "runs-completions": Screen("A query is completed while it is typed", _completions),
    "runs-nothing": Screen("A query that finds nothing", _nothing_found),
    "runs-wrong-query": Screen("A query that cannot be read", _wrong_query),
    "runs-two-chosen": Screen("Two runs are chosen, to be compared", _two_chosen),
    "run-good": Screen("A run that went well", _run("good")),
    "run-failed": Screen(
        "A run that failed, and why", _attempt("failed", "overview", **_FAILED), is_important=True
    ),
    "run-input": Screen("What went in", _attempt("failed", "input", **_FAILED)),
    "run-error": Screen("What went wrong", _attempt("failed", "error", **_FAILED)),
    "run-compared": Screen("An attempt beside the one before it", _attempt("failed", "compare", **_FAILED)),
    "run-raw": Screen("An attempt as the API has it", _attempt("failed", "raw", **_FAILED)),
    "run-chat": Screen(
        "A step of a model, as the conversation it was",
        _attempt("good", "chat", step="each_order/describe", iteration=0),
        is_important=True,
    ),
    "run-retried": Screen(
        "Attempts, and the pauses between them", _attempt("retried", "overview", step="ask", attempt=3)
    ),
    "run-nested": Screen(
        "Two thousand iterations of nested loops",
        _attempt("nested", "output", step="each_row/each_cell/look", iteration="31,47"),
        is_important=True,
    ),
    "run-cancelled": Screen("A run that was cancelled", _run("cancelled")),
    "run-waiting": Screen(
        "A run that waits for the results of tools", _attempt("waiting", "chat", step="answer")
    ),
    "run-missing": Screen("A run that is not there", _no_run),
    "keys": Screen("All keys of a page", _dialog("?")),
    "palette": Screen("Everything, found by typing", _dialog("Control+k")),
    "compare": Screen("A good run and a failed one", _compare, is_important=True),
}
